/**
 * Decides when to measure the lifetime of idle mappings: while no flow is open, and once in each
 * network. This is state of the StunActor, whose loop calls each of these functions in turn.
 */
import { Effect, FiberHandle, SubscriptionRef } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type { Lifetime } from "../../protocol/nat/MappingLifetime.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import type { Service } from "../../transport/udp/LifetimeProbe.ts"

/**
 * How long the node must be without flows before the search begins. Flows often follow one another
 * closely, and a new flow would end the search.
 */
export const QUIET_MS = 5_000
/**
 * Shortest time between two starts of the search. A node that is never idle for long then sends
 * only a few packets in this time.
 */
export const AGAIN_MS = 60_000

/** Makes the search. It stops when the scope ends. */
export const make = Effect.fnUntraced(function*(probe: Service) {
  const found = yield* SubscriptionRef.make<Lifetime | null>(null)
  const running = yield* FiberHandle.make<void>()
  let servers: ReadonlyArray<SocketAddr> = []
  let idle = true
  /** Whether the result belongs to this network, including the result that none can be found. */
  let known = false
  let begunAt = -Infinity

  const search = Effect.gen(function*() {
    yield* Effect.sleep(Math.max(QUIET_MS, begunAt + AGAIN_MS - (yield* nowMs)))
    begunAt = yield* nowMs
    const lifetime = yield* probe.find(servers)
    known = true
    yield* SubscriptionRef.set(found, lifetime)
    yield* Effect.logInfo("idle mappings were watched").pipe(
      Effect.annotateLogs(lifetime ?? { reason: "no default route" })
    )
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
    /** Lifetime that was measured last. `null` if it is not known, or no longer. */
    found,
    /** Starts the search if no flow is open, and stops it otherwise. */
    onIdle: (now: boolean) => {
      idle = now
      return consider
    },
    /** Takes the servers that can be asked. */
    onServers: (list: ReadonlyArray<SocketAddr>) => {
      const same = list.length === servers.length &&
        list.every(({ host, port }, i) => host === servers[i]?.host && port === servers[i].port)
      servers = list
      return same ? Effect.void : begin
    },
    /** Starts over, because this host moved to another network. */
    onNetworkChange: begin,
    /**
     * Notes that a NAT dropped a mapping, or was replaced. The last result counts until there is a
     * new one, and a search in progress continues.
     */
    onMappingChange: Effect.suspend(() => {
      known = false
      return consider
    })
  } as const
})
