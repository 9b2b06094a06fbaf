/**
 * Sends one request to one address over UDP and repeats it a few times until there is an answer.
 */
import { Effect } from "effect"
import { createSocket, type Socket } from "node:dgram"
import * as Candidate from "../../../protocol/candidate/Candidate.ts"
import type { Protocol } from "../../../protocol/nat/PortMapping.ts"
import { PortMappingFailed } from "./Asking.ts"

/**
 * Wait after each send, in milliseconds. A gateway is one hop away and answers within milliseconds.
 * The longer schedules of RFC 6886 (a minute) and RFC 6887 (ever longer waits) would only delay the
 * next protocol, and a failure is retried later anyway.
 */
const GAPS_MS = [150, 250, 500]

/** A request to the gateway, and how to recognise its answer. */
export interface Question<A> {
  readonly protocol: Protocol
  readonly host: string
  /** UDP port of the gateway. */
  readonly port: number
  /**
   * Encodes the request. `localHost` is this host's own address on the socket that is connected to
   * the gateway.
   */
  readonly bytes: (localHost: string) => Uint8Array
  /** Decodes a message. Returns `null` if it does not answer this request; it is then ignored. */
  readonly read: (bytes: Uint8Array) => A | null
}

/**
 * Sends a request and waits for the answer, at most 0.9 s. The kernel drops messages from other
 * addresses.
 */
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
      // An ICMP error: nothing listens on that port of the gateway.
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

/**
 * Returns the address from which this host reaches another one. Sends nothing. Fails with the
 * system's message.
 */
export const localHostTo = (host: string): Effect.Effect<string, string> =>
  Effect.scoped(Effect.flatMap(open, (socket) => connect(socket, host, 9)))

/** Opens an IPv4 UDP socket, which is closed with the scope. */
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
      resume(local === null ? Effect.fail("this host has no route to it") : Effect.succeed(local))
    })
  })
