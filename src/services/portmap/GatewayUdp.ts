/** One question to one address over UDP, asked a few times until it is answered. */
import { Clock, Effect } from "effect"
import { createSocket, type Socket } from "node:dgram"
import * as Candidate from "../../protocol/Candidate.ts"
import type { Protocol } from "../../protocol/PortMapping.ts"
import { PortMappingFailed } from "./Asking.ts"

/**
 * After each send. A gateway is one hop away and answers within milliseconds; RFC 6886's minute and RFC 6887's ever longer waits would
 * only keep the next protocol waiting. What failed is tried again later.
 */
const GAPS_MS = [150, 250, 500]

export interface Question<A> {
  readonly protocol: Protocol
  readonly host: string
  readonly port: number
  /** Of a socket that is connected there, whose own address is `localHost`. */
  readonly bytes: (localHost: string) => Uint8Array
  /** Null for what is no answer to this question: it is passed over. */
  readonly read: (bytes: Uint8Array) => A | null
}

/** Takes at most 0.9 s. The kernel lets in nothing from other addresses. */
export const ask = <A>(question: Question<A>): Effect.Effect<A, PortMappingFailed> =>
  Effect.scoped(Effect.gen(function*() {
    const { host, port, protocol, read } = question
    const failed = (reason: PortMappingFailed["reason"], message: string) =>
      new PortMappingFailed({ protocol, reason, message })
    const socket = yield* open
    const localHost = yield* connect(socket, host, port).pipe(
      Effect.mapError((message) => failed("Local", message))
    )
    const answered = Effect.async<A, PortMappingFailed>((resume) => {
      socket.on("message", (bytes) => {
        const answer = read(bytes)
        if (answer !== null) resume(Effect.succeed(answer))
      })
      // The gateway's host says that nobody listens there.
      socket.on("error", ({ message }) => resume(Effect.fail(failed("Silent", message))))
    })
    const bytes = question.bytes(localHost)
    const asking = Effect.forEach(
      GAPS_MS,
      (gap) => Effect.zipRight(Effect.sync(() => socket.send(bytes)), Effect.sleep(gap)),
      { discard: true }
    ).pipe(Effect.zipRight(Effect.fail(failed("Silent", `${host}:${port} does not answer`))))
    return yield* Effect.raceFirst(answered, asking)
  }))

/** From which of its addresses this host reaches another one; nothing is sent. */
export const localHostTo = (host: string): Effect.Effect<string, string> =>
  Effect.scoped(Effect.flatMap(open, (socket) => connect(socket, host, 9)))

export const open = Effect.acquireRelease(
  Effect.sync(() => createSocket("udp4")),
  (socket) =>
    Effect.sync(() => {
      socket.removeAllListeners()
      socket.on("error", () => {})
      socket.close()
    })
)

const connect = (socket: Socket, host: string, port: number): Effect.Effect<string, string> =>
  Effect.async((resume) => {
    const onError = ({ message }: Error) => resume(Effect.fail(message))
    socket.once("error", onError)
    socket.connect(port, host, (cause?: Error) => {
      socket.off("error", onError)
      if (cause !== undefined) return onError(cause)
      const local = Candidate.canonical(socket.address().address)
      resume(local === null ? Effect.fail("this host has no address towards it") : Effect.succeed(local))
    })
  })

/** Monotonic. */
export const nowMs = Effect.map(Clock.currentTimeNanos, (ns) => Number(ns) / 1e6)
