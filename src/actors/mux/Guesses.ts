/** Port guessing as the data plane does it: opens, probes and closes what the prober says, which counts and paces. */
import { Effect } from "effect"
import type * as PortGuess from "../../protocol/PortGuess.ts"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"
import type { PacketRouter } from "../../transport/plane/PacketRouter.ts"
import type { PeerSession } from "../../transport/plane/PeerSession.ts"
import { GuessSockets } from "../../transport/udp/GuessSockets.ts"
import type { PathEvent } from "../PathProberRpcs.ts"

interface Options {
  readonly router: PacketRouter
  /** Bytes. */
  readonly segment: number
  readonly publish: (event: PathEvent) => void
  /** Undefined: the session is gone. */
  readonly peerOf: (session: string) => PeerSession | undefined
}

/** All sockets are closed with the scope. */
export const make = Effect.fnUntraced(function*({ peerOf, publish, router, segment }: Options) {
  const sockets = yield* Effect.acquireRelease(
    Effect.sync(() =>
      new GuessSockets({
        router,
        segment,
        onSampled: (session, local, mapped) => publish({ _tag: "GuessSampled", session, local, mapped }),
        onRefused: (session, count, code) => publish({ _tag: "GuessRefused", session, count, code })
      })
    ),
    (it) => Effect.sync(() => it.forgetAll())
  )
  /** The relay, where it is reached by UDP. */
  const server = (): SocketAddr | null => {
    const { leg } = router
    return leg?.kind === "relay-udp" && leg.family === 4 ? { host: leg.address, port: leg.port } : null
  }
  return {
    sockets,
    handlers: {
      SampleGuess: (order: { readonly session: string; readonly count: number }) =>
        Effect.promise(async () => {
          if (peerOf(order.session) !== undefined) await sockets.sample(order.session, order.count, server())
        }),
      OpenGuess: (order: { readonly session: string; readonly to: SocketAddr; readonly count: number }) =>
        Effect.promise(async () => {
          const frame = peerOf(order.session)?.guessFrame() ?? null
          if (frame !== null) await sockets.openTo(order.session, order.to, order.count, frame)
        }),
      CloseGuess: (order: { readonly session: string }) => Effect.sync(() => sockets.close(order.session)),
      SendGuesses: (order: { readonly session: string; readonly to: ReadonlyArray<SocketAddr> }) =>
        Effect.sync(() => {
          const frame = peerOf(order.session)?.guessFrame() ?? null
          if (frame === null) return
          for (const { host, port } of order.to) router.portTo(4, host, port)?.send(frame, 0, frame.length, port, host)
        }),
      TellOpened: (order: { readonly session: string; readonly opened: PortGuess.Opened }) =>
        Effect.sync(() => peerOf(order.session)?.sendByRelay({ _tag: "Opened", opened: order.opened }))
    }
  } as const
})
