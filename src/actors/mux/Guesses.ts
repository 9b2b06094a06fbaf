/**
 * The data plane's part of port guessing: it opens, probes and closes sockets as the prober orders.
 * The prober keeps count and sets the pace.
 */
import { Effect } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import type * as PortGuess from "../../protocol/path/PortGuess.ts"
import type { PacketRouter } from "../../transport/plane/PacketRouter.ts"
import type { PeerSession } from "../../transport/plane/PeerSession.ts"
import { GuessSockets } from "../../transport/udp/GuessSockets.ts"
import type { PathEvent } from "../path/PathProberRpcs.ts"

interface Options {
  readonly router: PacketRouter
  /** Largest segment to send, in bytes. */
  readonly segment: number
  readonly publish: (event: PathEvent) => void
  /** Returns a session's peer, or `undefined` if the session is gone. */
  readonly peerOf: (session: string) => PeerSession | undefined
}

/** Makes the handlers of the prober's calls. All sockets close with the scope. */
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
  /** Address of the relay, if its leg is UDP over IPv4. Otherwise `null`. */
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
