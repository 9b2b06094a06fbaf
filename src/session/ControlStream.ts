/**
 * A session's first stream, on which both sides exchange control messages (`SessionWire`). It ends
 * only with the session.
 */
import * as FlowWire from "../protocol/flow/FlowWire.ts"
import * as SessionWire from "../protocol/flow/SessionWire.ts"
import { type FlowStream, READ_NOTHING, READ_RESET } from "./FlowStream.ts"

/** Most unsent bytes. If there would be more, the peer reads nothing and the session is useless. */
const MAX_UNSENT_BYTES = 256 * 1024

const OPEN = FlowWire.encodeOpen({ kind: "control", resource: "", host: "", port: 0, traceparent: null })

/** Callbacks of a control stream. */
export interface ControlEvents {
  readonly onMessage: (message: SessionWire.SessionMessage) => void
  /**
   * Called once, when the peer violated the protocol, ended the stream or reads nothing. No message
   * is sent or received afterwards.
   */
  readonly onBroken: (why: string) => void
}

/** Sends and receives the control messages of one session. */
export class ControlStream {
  readonly #stream: FlowStream
  readonly #events: ControlEvents
  readonly #decoder = new SessionWire.Decoder()
  #unsent = new Uint8Array(0)
  #isBroken = false

  /** `early` are bytes of the stream that were read before. */
  constructor(stream: FlowStream, events: ControlEvents, early: Uint8Array = new Uint8Array(0)) {
    this.#stream = stream
    this.#events = events
    stream.handler = {
      onReadable: () => this.#read(),
      onWritable: () => this.#write(),
      onClosed: () => undefined // the session reports this to its owner
    }
    if (early.length > 0) this.#take(early)
  }

  /** Starts the stream. Client only. */
  static open(stream: FlowStream, events: ControlEvents): ControlStream {
    const control = new ControlStream(stream, events)
    if (OPEN !== null) control.#append(OPEN)
    return control
  }

  /** Sends a message. A message that is too long is dropped, which is a bug of the caller. */
  send(message: SessionWire.SessionMessage): void {
    const bytes = SessionWire.encode(message)
    if (bytes !== null) this.#append(bytes)
  }

  #break(why: string): void {
    if (this.#isBroken) return
    this.#isBroken = true
    this.#unsent = new Uint8Array(0)
    this.#events.onBroken(why)
  }

  #append(bytes: Uint8Array): void {
    if (this.#isBroken) return
    if (this.#unsent.length + bytes.length > MAX_UNSENT_BYTES) {
      return this.#break("the peer reads no control messages")
    }
    const all = new Uint8Array(this.#unsent.length + bytes.length)
    all.set(this.#unsent)
    all.set(bytes, this.#unsent.length)
    this.#unsent = all
    this.#write()
  }

  #write(): void {
    if (this.#unsent.length === 0) return
    const taken = this.#stream.write(this.#unsent)
    if (taken < 0) return this.#break("the peer stopped the control stream")
    this.#unsent = this.#unsent.slice(taken)
  }

  #read(): void {
    for (let budget = 64; budget > 0 && !this.#isBroken; budget--) {
      const got = this.#stream.read(scratch)
      if (got === READ_NOTHING) return
      if (got === READ_RESET || this.#stream.readOver) return this.#break("the peer ended the control stream")
      if (!this.#take(scratch.subarray(0, got))) return
    }
  }

  #take(bytes: Uint8Array): boolean {
    const step = this.#decoder.push(bytes)
    if (step._tag === "Bad") {
      this.#break(`a bad control message (${step.reason})`)
      return false
    }
    for (const message of step.messages) this.#events.onMessage(message)
    return true
  }
}

const scratch = new Uint8Array(16 * 1024)
