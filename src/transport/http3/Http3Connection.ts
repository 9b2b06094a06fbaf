/**
 * HTTP/3 (RFC 9114) on one QUIC connection, as far as a relay link needs it: one WebTransport
 * session (draft-ietf-webtrans-http3) with one stream, which the client opens, and its datagrams
 * (RFC 9297).
 *
 * Every other request is answered 404, or 429 if there is a session already. Other streams are
 * refused. The peer may be anybody: what is stored for it is limited, and a protocol violation ends
 * the connection.
 */
import { Either } from "effect"
import { concat } from "../../protocol/bytes/Concat.ts"
import * as Varint from "../../protocol/bytes/Varint.ts"
import * as Http3 from "../../protocol/http3/Http3.ts"
import * as Qpack from "../../protocol/http3/Qpack.ts"
import { type QuicConnection, READ_NOTHING, READ_RESET } from "../quic/engine/QuicEngine.ts"
import { OutStream } from "./OutStream.ts"
import { QuicDriver } from "./QuicDriver.ts"
import { MAX_PACKET, MAX_STREAM_WINDOW } from "./QuicheHttp3.ts"
import type { Transmit } from "./TrainSender.ts"
import { UniStreams } from "./UniStreams.ts"

const { ErrorCode, FrameType, Setting } = Http3

/**
 * Longest header section of a request or an answer, and longest other frame or capsule that is kept
 * whole, in bytes.
 */
const MAX_FRAME_BYTES = 8192
/**
 * Most bytes received on all streams other than the session's. A browser sends far fewer, and
 * parsing them costs little.
 */
const MAX_SAID_BYTES = 64 * 1024
/** Most bytes in which the start of a stream says what the stream is. */
const MAX_HEAD_BYTES = 16
/**
 * Delay in milliseconds between the end of the session's stream and the session's close message.
 * Browsers drop what they have not read when the close arrives, so it must not overtake the last
 * bytes.
 */
const CLOSE_AFTER_END_MS = 200
/**
 * How long the end of a session waits for the end of its stream, or the reverse, in milliseconds. A
 * refused client has the same time to read its answer.
 */
const END_PATIENCE_MS = 1000
/** Read buffer of the thread. */
const scratch = Buffer.allocUnsafeSlow(64 * 1024)
/** Buffer for the datagram that is being sent. */
const outgoing = Buffer.allocUnsafeSlow(MAX_PACKET)

/** A WebTransport close message: the application's code and reason. */
export interface SessionClosed {
  readonly code: number
  readonly reason: string
}

/** Callbacks of a connection. Those of the session are called in order. */
export interface Events {
  /**
   * Called once, when the handshake is complete. If the peer's certificate is wrong, return
   * `false`: the connection is then closed, and nothing is sent.
   */
  readonly onEstablished: () => boolean
  /** Called when a client asks for a session. Reply with `answer`, now or later. Server only. */
  readonly onRequest: (request: Http3.Request) => void
  /** Called when the server has answered. With status 200 the session is open. Client only. */
  readonly onStatus: (status: number) => void
  /** Called with bytes of the session's stream. The callee owns them. */
  readonly onBytes: (bytes: Uint8Array) => void
  /** Called with each datagram of the session. It is valid only during the call. */
  readonly onDatagram: (bytes: Uint8Array) => void
  /** Called when QUIC has taken bytes that were waiting to be sent. */
  readonly onDrain: () => void
  /**
   * Called once, at the end of the session, with the peer's close message. `null` if the connection
   * was lost or the peer ended only the stream.
   */
  readonly onEnd: (closed: SessionClosed | null) => void
  /** Called once, after all other callbacks. */
  readonly onGone: () => void
}

/** Options of {@link Http3Connection}. */
export interface Options {
  readonly role: "client" | "server"
  readonly quic: QuicConnection
  readonly transmit: Transmit
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
}

const NOBODY: Events = {
  onEstablished: () => false,
  onRequest: () => {},
  onStatus: () => {},
  onBytes: () => {},
  onDatagram: () => {},
  onDrain: () => {},
  onEnd: () => {},
  onGone: () => {}
}

interface Incoming {
  head: Uint8Array
  /** Parser of a request. `null` while it is not known what the stream is. */
  frames: Http3.FrameReader | null
}

const SETTINGS: Readonly<Record<number, number>> = {
  [Setting.qpackMaxTableCapacity]: 0,
  [Setting.qpackBlockedStreams]: 0,
  [Setting.maxFieldSectionSize]: MAX_FRAME_BYTES,
  [Setting.enableConnectProtocol]: 1,
  [Setting.h3Datagram]: 1,
  [Setting.h3DatagramDraft04]: 1,
  [Setting.enableWebTransportDraft02]: 1,
  [Setting.webTransportMaxSessionsDraft07]: 1
}
/** Stream of a client's request. */
const REQUEST = 0
/** Stream of a client's session. */
const CLIENT_STREAM = 4

/** An HTTP/3 connection with at most one WebTransport session, on either side. */
export class Http3Connection {
  readonly driver: QuicDriver
  readonly #options: Options
  readonly #quic: QuicConnection
  readonly #uni: UniStreams
  #events = NOBODY
  /** Bytes received on streams other than the session's. */
  #said = 0
  readonly #incoming = new Map<number, Incoming>()
  readonly #answers = new Map<number, OutStream>()
  readonly #capsules = new Http3.CapsuleReader(MAX_FRAME_BYTES)
  /** Stream of the request for the session. `null` while there is none. */
  #session: number | null = null
  #isAnswered = false
  #isOpen = false
  #streamId = -1
  #stream: OutStream | null = null
  #streamEnded = false
  #paused = false
  #began = false
  #closing: SessionClosed | null = null
  #heard: SessionClosed | null = null
  #over = false
  #datagramHead: Uint8Array = new Uint8Array(0)
  readonly #timers = new Set<NodeJS.Timeout>()

  constructor(options: Options) {
    this.#options = options
    this.#quic = options.quic
    this.driver = new QuicDriver({
      ...options,
      serve: () => this.#serve(),
      onClosed: () => this.#finish(null),
      onGone: () => {
        for (const timer of this.#timers) clearTimeout(timer)
        this.#events.onGone()
      }
    })
    this.#uni = new UniStreams({
      quic: this.#quic,
      isClient: options.role === "client",
      settings: SETTINGS,
      maxFrameBytes: MAX_FRAME_BYTES,
      onBytes: (bytes) => this.#onSaid(bytes),
      onFault: (fault) => this.#fault(fault)
    })
  }

  /** Sets the receiver of events. Call it before the first packet arrives. */
  attach(events: Events): void {
    this.#events = events
  }

  /** Bytes of the session's stream that QUIC has not taken. */
  get bufferedBytes(): number {
    return this.#stream?.bufferedBytes ?? 0
  }

  /**
   * Asks for the session as soon as the handshake is complete and the server has announced that it
   * supports WebTransport. Client only.
   */
  request(authority: string, path: string): void {
    const fields = [
      [":method", "CONNECT"],
      [":protocol", "webtransport"],
      [":scheme", "https"],
      [":authority", authority],
      [":path", path],
      ["sec-webtransport-http3-draft02", "1"]
    ] as const
    const ask = () => {
      this.#session = REQUEST
      this.#answer(REQUEST, Http3.frame(FrameType.headers, Qpack.encode(fields)), false)
    }
    this.#uni.onSettings((settings) => {
      const knows = settings.get(Setting.enableConnectProtocol) === 1 &&
        (settings.has(Setting.webTransportMaxSessionsDraft07) || settings.has(Setting.enableWebTransportDraft02))
      if (knows) ask()
      else this.driver.close(ErrorCode.settings, "no WebTransport here")
    })
  }

  /** Replies to `onRequest`. Only the first answer counts. Server only. */
  answer(status: number, headers: ReadonlyArray<readonly [string, string]> = []): void {
    if (this.#session === null || this.#isAnswered) return
    const isOpen = status === 200
    this.#isAnswered = true
    this.#respond(this.#session, status, [...headers, ...(isOpen ? DRAFT : [])], !isOpen)
    if (isOpen) this.#open()
    else this.#later(END_PATIENCE_MS, () => this.driver.close(ErrorCode.noError, ""))
  }

  /** Writes to the session's stream. `done` reports whether QUIC has taken the bytes. */
  write(bytes: Uint8Array, done?: (left: boolean) => void): void {
    if (this.#stream === null || this.driver.isClosed) return done?.(false)
    this.#stream.push(bytes, done)
    this.driver.schedule()
  }

  /**
   * Sends a copy of `bytes` as a datagram. Returns `false` if the session is not open, if the
   * datagram is too long for a packet, or if too many are waiting.
   */
  sendDatagram(bytes: Uint8Array): boolean {
    if (!this.#isOpen || this.driver.isClosed) return false
    const head = this.#datagramHead
    const length = head.length + bytes.length
    if (length > outgoing.length) return false
    outgoing.set(head)
    outgoing.set(bytes, head.length)
    const datagram = outgoing.subarray(0, length) // QUIC takes a copy
    const sent = this.#quic.sendDatagram(datagram)
    if (sent) {
      this.driver.meter.wrote(datagram.length)
      this.driver.schedule()
    }
    return sent
  }

  /**
   * Stops reading the session's stream until `resume`. The stream's window then makes the peer
   * wait.
   */
  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.driver.schedule()
  }

  /**
   * Ends the session after everything that was written has left. The caller or the peer then closes
   * the connection.
   */
  end(closed: SessionClosed): void {
    if (this.#closing !== null || this.#over) return
    this.#closing = closed
    this.resume() // otherwise the peer's own end is never read
    this.#stream?.end()
    if (this.#stream === null) this.#sayClose(closed)
    this.driver.schedule()
  }

  #serve(): void {
    if (!this.#began) {
      this.#began = true
      if (!this.#events.onEstablished()) return this.driver.close(ErrorCode.noError, "")
      this.#uni.begin()
    }
    for (const id of this.#quic.readable()) {
      if (this.driver.isClosed) return
      if ((id & 2) !== 0) this.#uni.serve(id)
      else this.#serveBidi(id)
    }
    this.#serveDatagrams()
    this.#flush()
  }

  #flush(): void {
    for (const answer of this.#answers.values()) this.#flushOne(answer)
    const stream = this.#stream
    if (stream === null) return
    const written = this.#flushOne(stream)
    if (written < 0) return this.#onStreamEnd() // the peer no longer reads the stream
    if (written > 0) this.#events.onDrain()
    if (this.#closing !== null && stream.isOver) {
      const closed = this.#closing
      this.#stream = null
      this.#later(CLOSE_AFTER_END_MS, () => this.#sayClose(closed))
    }
  }

  #flushOne(stream: OutStream): number {
    const written = stream.flush(this.#quic)
    if (written > 0) this.driver.meter.wrote(written)
    return written
  }

  #sayClose({ code, reason }: SessionClosed): void {
    if (this.#session === null) return
    this.#answer(this.#session, Http3.frame(FrameType.data, Http3.encodeClose(code, reason)), true)
  }

  #serveDatagrams(): void {
    for (let data = this.#quic.receiveDatagram(); data !== null; data = this.#quic.receiveDatagram()) {
      this.driver.meter.read(data.length)
      const head = Varint.read(data, 0)
      if (head === null || !this.#isOpen || head.value * 4 !== this.#session) continue
      this.#events.onDatagram(data.subarray(head.end))
    }
  }

  /**
   * Serves a readable bidirectional stream: the session's stream, a request, or one whose header
   * has not been parsed yet.
   */
  #serveBidi(id: number): void {
    if (this.#streamId === id) return this.#streamEnded ? undefined : this.#readStream(id)
    let incoming = this.#incoming.get(id)
    if (incoming === undefined) {
      incoming = { head: new Uint8Array(0), frames: this.#options.role === "client" ? newFrames() : null }
      this.#incoming.set(id, incoming)
    }
    for (;;) {
      const got = this.#quic.read(id, scratch)
      if (got === READ_NOTHING) return
      const finished = got === READ_RESET || this.#quic.readFinished()
      if (got > 0) {
        const bytes = Uint8Array.from(scratch.subarray(0, got))
        if (incoming.frames === null) this.#onHead(id, incoming, bytes)
        else this.#onFrames(id, incoming.frames, bytes)
        if (this.#streamId === id) return this.#readStream(id, finished)
        this.#onSaid(got)
      }
      if (this.driver.isClosed) return
      if (finished) return this.#onRequestEnd(id)
    }
  }

  #onSaid(bytes: number): void {
    this.driver.meter.read(bytes)
    this.#said += bytes
    if (this.#said > MAX_SAID_BYTES) this.#close(ErrorCode.excessiveLoad, "too much beside the session")
  }

  #onHead(id: number, incoming: Incoming, bytes: Uint8Array): void {
    const held = incoming.head.length === 0 ? bytes : concat([incoming.head, bytes])
    const head = Http3.bidiHead(held)
    if (head === null) {
      incoming.head = held
      if (held.length > MAX_HEAD_BYTES) this.#close(ErrorCode.frame, "a stream that begins with nothing")
      return
    }
    if (head._tag === "Request") {
      incoming.frames = newFrames()
      return this.#onFrames(id, incoming.frames, held)
    }
    this.#incoming.delete(id)
    if (!this.#isOpen || head.session !== this.#session || this.#streamId !== -1) {
      return this.#close(ErrorCode.bufferedStreamRejected, "one session of one stream")
    }
    this.#beginStream(id)
    this.#stream = new OutStream(id)
    this.driver.meter.read(bytes.length)
    if (head.end < held.length) this.#events.onBytes(held.subarray(head.end))
  }

  /**
   * Notes which stream is the session's. While its reader pauses, a whole window may arrive unread.
   */
  #beginStream(id: number): void {
    this.#streamId = id
    this.driver.meter.allow(MAX_STREAM_WINDOW)
  }

  #readStream(id: number, isOver = false): void {
    let finished = isOver
    while (!finished && !this.#paused) {
      const got = this.#quic.read(id, scratch)
      if (got === READ_NOTHING) return
      finished = got === READ_RESET || this.#quic.readFinished()
      if (got > 0) {
        this.driver.meter.read(got)
        this.driver.schedule() // gives the peer new credit
        this.#events.onBytes(Uint8Array.from(scratch.subarray(0, got)))
      }
    }
    if (finished) this.#onStreamEnd()
  }

  #onStreamEnd(): void {
    this.#streamEnded = true
    if (this.#heard !== null) this.#finish(this.#heard)
    else this.#later(END_PATIENCE_MS, () => this.#finish(null))
  }

  #onFrames(id: number, reader: Http3.FrameReader, bytes: Uint8Array): void {
    const frames = reader.push(bytes)
    if (Either.isLeft(frames)) return this.#fault(frames.left)
    for (const { payload, type } of frames.right) {
      if (type === FrameType.headers) this.#onHeaders(id, payload)
      else if (type === FrameType.data) this.#onData(id, payload)
      else this.#close(ErrorCode.frameUnexpected, `frame ${type} in a request`)
      if (this.driver.isClosed) return
    }
  }

  #onHeaders(id: number, payload: Uint8Array): void {
    const fields = Qpack.decode(payload, MAX_FRAME_BYTES)
    if (Either.isLeft(fields)) return this.#fault(fields.left)
    if (this.#options.role === "client") return this.#onResponse(id, fields.right)
    if (this.#answers.has(id) || this.#session === id) return // trailers
    const request = Http3.toRequest(fields.right)
    if (Either.isLeft(request)) return this.#fault(request.left)
    const { method, protocol } = request.right
    if (method !== "CONNECT" || protocol !== "webtransport") return this.#respond(id, 404, [], true)
    if (this.#session !== null) return this.#respond(id, 429, [], true)
    this.#session = id
    this.#events.onRequest(request.right)
  }

  #onResponse(id: number, fields: ReadonlyArray<readonly [string, string]>): void {
    if (id !== REQUEST || this.#isOpen) return
    const status = Http3.statusOf(fields)
    if (Either.isLeft(status)) return this.#fault(status.left)
    if (status.right < 200) return
    if (status.right === 200) {
      this.#open()
      this.#beginStream(CLIENT_STREAM)
      this.#stream = new OutStream(CLIENT_STREAM)
      this.#stream.push(Http3.webTransportHead(REQUEST))
    }
    this.#events.onStatus(status.right)
  }

  #onData(id: number, payload: Uint8Array): void {
    if (id !== this.#session || !this.#isOpen) return
    const capsules = this.#capsules.push(payload)
    if (Either.isLeft(capsules)) return this.#fault(capsules.left)
    for (const { payload, type } of capsules.right) {
      if (type !== Http3.Capsule.closeSession) continue
      const closed = Http3.decodeClose(payload)
      if (closed === null) return this.#close(ErrorCode.message, "a close that says nothing")
      this.#onSessionEnd(closed)
    }
  }

  /** The stream of a request has ended. If it is the session's request, the session ends. */
  #onRequestEnd(id: number): void {
    this.#incoming.delete(id)
    if (id === this.#session && this.#isOpen) this.#onSessionEnd(this.#heard ?? { code: 0, reason: "" })
    else if (id === this.#session) this.#finish(null)
  }

  #onSessionEnd(closed: SessionClosed): void {
    if (this.#heard !== null) return
    this.#heard = closed
    if (this.#streamEnded || this.#streamId === -1) this.#finish(closed)
    else this.#later(END_PATIENCE_MS, () => this.#finish(closed))
  }

  #open(): void {
    this.#isOpen = true
    this.#datagramHead = Varint.encode((this.#session ?? 0) / 4)
  }

  #respond(id: number, status: number, headers: ReadonlyArray<readonly [string, string]>, isLast: boolean): void {
    const fields = [[":status", `${status}`], ...headers] as ReadonlyArray<readonly [string, string]>
    this.#answer(id, Http3.frame(FrameType.headers, Qpack.encode(fields)), isLast)
    if (isLast) this.#quic.stop(id, ErrorCode.noError)
  }

  #answer(id: number, frame: Uint8Array, isLast: boolean): void {
    let answer = this.#answers.get(id)
    if (answer === undefined) {
      if (this.#answers.size >= MAX_ANSWERS) return this.#close(ErrorCode.excessiveLoad, "too many requests")
      answer = new OutStream(id)
      this.#answers.set(id, answer)
    }
    answer.push(frame)
    if (isLast) answer.end()
    this.driver.schedule()
  }

  #finish(closed: SessionClosed | null): void {
    if (this.#over) return
    this.#over = true
    this.#stream?.fail()
    this.#events.onEnd(closed)
  }

  #fault({ code, message }: Http3.Http3Fault): void {
    this.#close(code, message)
  }

  #close(code: number, message: string): void {
    this.driver.close(code, message)
  }

  #later(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      act()
    }, ms)
    this.#timers.add(timer)
  }
}

/**
 * Most requests that are answered on one connection. A connection is for one link, and a browser
 * makes far fewer.
 */
const MAX_ANSWERS = 32
/** Header that browsers of 2022 to 2024 expect. */
const DRAFT = [["sec-webtransport-http3-draft", "draft02"]] as const

const newFrames = () => new Http3.FrameReader(MAX_FRAME_BYTES)
