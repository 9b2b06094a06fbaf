/** The node's UDP sockets, one for each IP version that this host has: opened, replaced after a move, and closed with the scope. */
import { Effect, ExecutionStrategy, Exit, FiberSet, Scope } from "effect"
import type { PacketRouter } from "../../transport/plane/PacketRouter.ts"
import * as UdpPort from "../../transport/udp/UdpPort.ts"

type Family = 4 | 6
const KEY = { 4: "v4", 6: "v6" } as const

export interface Sockets {
  readonly ports: () => { readonly v4?: number; readonly v6?: number }
  /** Packets leave by new ports afterwards. What still comes to the old ones is lost: the address that they were for is gone. */
  readonly rebind: (families: ReadonlyArray<Family>) => Effect.Effect<void>
}

/** `port` 0: any free one, another one each time; else that one, which is never replaced. */
export const make = Effect.fnUntraced(function*(options: {
  readonly router: PacketRouter
  readonly port: number
  /** Bytes. */
  readonly segment: number
}) {
  const { router } = options
  const parent = yield* Effect.scope
  const fork = yield* FiberSet.makeRuntime()
  const held = new Map<Family, { readonly udp: UdpPort.UdpPort; readonly scope: Scope.CloseableScope }>()

  const open = Effect.fnUntraced(function*(family: Family) {
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const udp = yield* UdpPort.openScoped({
      host: family === 4 ? "0.0.0.0" : "::",
      port: options.port,
      family,
      segment: options.segment,
      dontFragment: true,
      onMessage: (bytes, from) => router.onDatagrams(bytes, from),
      onError: (cause) => fork(Effect.logError("a UDP socket failed", cause))
    }).pipe(Scope.extend(scope), Effect.onError(() => Scope.close(scope, Exit.void)))
    const before = held.get(family)
    held.set(family, { udp, scope })
    router[KEY[family]] = udp
    if (before !== undefined) yield* Scope.close(before.scope, Exit.void)
  }, Effect.uninterruptible)

  yield* Effect.forEach([4, 6] as const, (family) => Effect.option(open(family)), { discard: true })
  return {
    ports: () => Object.fromEntries([...held].map(([family, { udp }]) => [KEY[family], udp.address().port])),
    rebind: (families) =>
      options.port !== 0
        ? Effect.void
        : Effect.forEach(
          families.filter((family) => held.has(family)),
          (family) =>
            Effect.catchAll(open(family), (error) => Effect.logWarning("a UDP socket is not replaced", error.message)),
          { discard: true }
        )
  } satisfies Sockets
})
