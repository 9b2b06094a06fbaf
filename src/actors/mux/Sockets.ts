/**
 * The node's UDP sockets, one for each IP version that this host has. They are replaced after a
 * move and close with the scope.
 */
import { Effect, ExecutionStrategy, Exit, FiberSet, Scope } from "effect"
import type { PacketRouter } from "../../transport/plane/PacketRouter.ts"
import * as UdpPort from "../../transport/udp/UdpPort.ts"

type Family = 4 | 6
const KEY = { 4: "v4", 6: "v6" } as const

/**
 * The configured port could not be bound. `code` is the system's name of the error, such as
 * EADDRINUSE.
 */
export interface Missed {
  readonly family: Family
  readonly port: number
  readonly code: string
}

/** The node's UDP sockets. */
export interface Sockets {
  /** Ports of the bound sockets, by IP version. */
  readonly ports: () => {
    readonly v4?: number
    readonly v6?: number
    /**
     * Sockets without the configured port. Empty if no port is configured, or every socket has it.
     */
    readonly missed: ReadonlyArray<Missed>
    /** The latest send that a firewall on this machine forbade. `null` if there was none. */
    readonly forbidden: { readonly code: string; readonly agoMs: number } | null
  }
  /**
   * Replaces the sockets of these IP versions by sockets on new ports. Packets that still arrive at
   * the old ports are lost, because nothing listens there any more.
   */
  readonly rebind: (families: ReadonlyArray<Family>) => Effect.Effect<void>
  /**
   * Tries again to bind the configured port where that failed before. Returns `true` if a socket
   * has it now.
   */
  readonly takeConfigured: Effect.Effect<boolean>
}

/**
 * Opens the sockets. With `port` 0, each socket gets any free port, and another free one each time
 * that it is replaced. With any other `port`, the sockets keep that port and are never replaced.
 * While another program has the port, a free one is used: a node on an unexpected port is harder to
 * reach, but a node without a socket cannot be reached at all.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly router: PacketRouter
  readonly port: number
  /** Largest segment to send, in bytes. */
  readonly segment: number
}) {
  const { router } = options
  const parent = yield* Effect.scope
  const fork = yield* FiberSet.makeRuntime()
  const held = new Map<Family, { readonly udp: UdpPort.UdpPort; readonly scope: Scope.CloseableScope }>()
  const missed = new Map<Family, Missed>()

  const open = Effect.fnUntraced(function*(family: Family, port: number) {
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const udp = yield* UdpPort.openScoped({
      host: family === 4 ? "0.0.0.0" : "::",
      port,
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

  const openFirst = (family: Family) =>
    open(family, options.port).pipe(
      Effect.catchIf(() => options.port !== 0, (error) =>
        Effect.zipRight(
          open(family, 0),
          Effect.suspend(() => {
            missed.set(family, { family, port: options.port, code: error.code })
            return Effect.logWarning(
              `the configured UDP port is not free; this node uses another one and tries it again. ${error.message}`
            ).pipe(Effect.annotateLogs({ port: options.port, used: held.get(family)?.udp.address().port }))
          })
        ))
    )

  yield* Effect.forEach([4, 6] as const, (family) => Effect.option(openFirst(family)), { discard: true })
  const sockets: Sockets = {
    ports: () => ({
      ...Object.fromEntries([...held].map(([family, { udp }]) => [KEY[family], udp.address().port])),
      missed: [...missed.values()],
      forbidden: latest([...held.values()].map(({ udp }) => udp.forbidden))
    }),
    rebind: (families) =>
      Effect.forEach(
        families.filter((family) => held.has(family) && (options.port === 0 || missed.has(family))),
        (family) =>
          Effect.catchAll(open(family, 0), (error) =>
            Effect.logWarning("a UDP socket could not be replaced", error.message)),
        { discard: true }
      ),
    takeConfigured: Effect.suspend(() =>
      Effect.forEach([...missed.keys()], (family) =>
        open(family, options.port).pipe(
          Effect.tap(() => {
            missed.delete(family)
            return Effect.logInfo("the configured UDP port is free now and in use again").pipe(
              Effect.annotateLogs({ port: options.port, family })
            )
          }),
          Effect.as(true),
          Effect.orElseSucceed(() => false)
        ))
    ).pipe(Effect.map((taken) => taken.includes(true)))
  }
  return sockets
})

const latest = (all: ReadonlyArray<UdpPort.Forbidden | null>) => {
  const [last] = all.filter((found) => found !== null).toSorted((left, right) => right.at - left.at)
  return last === undefined ? null : { code: last.code, agoMs: performance.now() - last.at }
}
