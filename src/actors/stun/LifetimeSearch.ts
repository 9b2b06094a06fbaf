/**
 * When the lifetime of idle mappings is looked for: while no flow is open, and once in each network. State of the StunActor, whose
 * loop calls each of these in turn.
 */
import { Clock, Effect, FiberHandle, SubscriptionRef } from "effect"
import type { Lifetime } from "../../protocol/MappingLifetime.ts"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"
import type { Service } from "../../transport/udp/LifetimeProbe.ts"

/** Without a flow for so long before the search begins: a flow that follows another one is not worth a beginning. */
export const QUIET_MS = 5_000
/** From one beginning to the next: a node that is never idle for long sends a few packets in this time. */
export const AGAIN_MS = 60_000

export const make = Effect.fnUntraced(function*(probe: Service) {
  const found = yield* SubscriptionRef.make<Lifetime | null>(null)
  const running = yield* FiberHandle.make<void>()
  let servers: ReadonlyArray<SocketAddr> = []
  let idle = true
  /** What was found is of this network, or nothing can be. */
  let known = false
  let begunAt = -Infinity

  const search = Effect.gen(function*() {
    yield* Effect.sleep(Math.max(QUIET_MS, begunAt + AGAIN_MS - (yield* nowMs)))
    begunAt = yield* nowMs
    const lifetime = yield* probe.find(servers)
    known = true
    yield* SubscriptionRef.set(found, lifetime)
    yield* Effect.logInfo("idle mappings were watched").pipe(Effect.annotateLogs(lifetime ?? { reason: "no way out" }))
  })
  const consider = Effect.suspend(() =>
    idle && !known && servers.length > 0
      ? Effect.asVoid(FiberHandle.run(running, search, { onlyIfMissing: true }))
      : FiberHandle.clear(running)
  )
  const begin = Effect.suspend(() => {
    known = false
    return FiberHandle.clear(running).pipe(Effect.zipRight(SubscriptionRef.set(found, null)), Effect.zipRight(consider))
  })
  return {
    /** Null: not known (any more). */
    found,
    onIdle: (now: boolean) => {
      idle = now
      return consider
    },
    /** Those that can be asked. */
    onServers: (list: ReadonlyArray<SocketAddr>) => {
      const same = list.length === servers.length &&
        list.every(({ host, port }, i) => host === servers[i]?.host && port === servers[i].port)
      servers = list
      return same ? Effect.void : begin
    },
    /** This host moved. */
    onNetworkChange: begin,
    /** A translator forgot, or is another one. What was found counts until more is known, and a search under way goes on. */
    onMappingChange: Effect.suspend(() => {
      known = false
      return consider
    })
  } as const
})

/** Monotonic. */
const nowMs = Effect.map(Clock.currentTimeNanos, (ns) => Number(ns) / 1e6)
