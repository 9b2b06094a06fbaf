/** Flows of a world with a hub: numbered words to a resource that sends everything back, each answer checked. */
import { Effect, Either } from "effect"
import { Duplex } from "node:stream"
import type * as Sessions from "../../../src/actors/mux/sessions/Sessions.ts"
import type { Verdict } from "../../../src/protocol/flow/FlowWire.ts"
import type { Answer } from "../../../src/session/FlowStart.ts"
import type { FlowStream } from "../../../src/session/FlowStream.ts"
import { READ_NOTHING, READ_RESET } from "../../../src/session/FlowStream.ts"
import type * as Dialer from "../../../src/transport/flow/Dialer.ts"
import type { Reader } from "../../../src/transport/flow/TcpReader.ts"
import type { FlowSession } from "../../../src/transport/plane/FlowSession.ts"

export const PORT = 80
const WORD_BYTES = 4

/** Connects to a resource in memory that echoes. */
export const dial: typeof Dialer.dial = (_, done) => {
  const reader = { sink: null as Reader["sink"] }
  const socket = new Duplex({
    allowHalfOpen: true,
    read: () => undefined,
    write: (bytes: Buffer, _encoding, written) => {
      reader.sink?.(Buffer.from(bytes))
      written()
    },
    final: (ended) => {
      socket.push(null)
      ended()
    }
  })
  done({ _tag: "Connected", reader: Object.assign(reader, { socket }) as unknown as Reader, address: "192.0.2.80" })
  return () => socket.destroy()
}

export class EchoFlow {
  readonly session: FlowSession
  readonly #stream: FlowStream
  #kept = Buffer.alloc(0)
  #said = 0
  heard = 0
  /** Why the flow is over. Null while it is open. */
  over: string | null = null

  private constructor(session: FlowSession, stream: FlowStream) {
    this.session = session
    this.#stream = stream
    const space = Buffer.alloc(4_096)
    const onReadable = () => {
      for (let got = stream.read(space); got !== READ_NOTHING; got = stream.read(space)) {
        if (got === READ_RESET || stream.readOver) return this.#end(got === READ_RESET ? "reset" : "ended")
        this.#onBytes(space.subarray(0, got))
      }
    }
    stream.handler = { onReadable, onWritable: () => {}, onClosed: () => this.#end("the session ended") }
  }

  /** Opens a flow by a session that permits it, dialling one if there is none. */
  static open(
    sessions: ReturnType<typeof Sessions.make>,
    host: string
  ): Effect.Effect<Either.Either<EchoFlow, Verdict>> {
    return Effect.either(sessions.obtain({ kind: "tcp", host, port: PORT })).pipe(
      Effect.flatMap(Either.match({
        onLeft: (verdict) => Effect.succeed(Either.left(verdict)),
        onRight: (session) =>
          Effect.async<Answer>((resume) => {
            session.openFlow({ kind: "tcp", host, port: PORT, traceparent: null }, (answer) =>
              resume(Effect.succeed(answer)))
          }).pipe(Effect.map((answer): Either.Either<EchoFlow, Verdict> =>
            answer._tag === "Rejected"
              ? Either.left(answer.verdict)
              : Either.right(new EchoFlow(session, answer.stream))
          ))
      }))
    )
  }

  get said(): number {
    return this.#said
  }

  say(): void {
    const bytes = Buffer.alloc(WORD_BYTES)
    bytes.writeUInt32BE(this.#said++)
    this.#stream.write(bytes)
  }

  end(): void {
    if (this.over !== null) return
    this.#stream.finish()
    this.#end("ended here")
  }

  #end(why: string): void {
    if (this.over !== null) return
    this.over = why
    this.session.flowEnded()
  }

  #onBytes(bytes: Buffer): void {
    const all = Buffer.concat([this.#kept, bytes])
    let at = 0
    for (; all.length - at >= WORD_BYTES; at += WORD_BYTES) {
      const word = all.readUInt32BE(at)
      if (word !== this.heard++) this.#end(`word ${word} came instead of ${this.heard - 1}`)
    }
    this.#kept = Buffer.from(all.subarray(at))
  }
}
