/**
 * A link over WebTransport on HTTP/2. A connection has one session, and a session one stream, which
 * the client creates: in this library the first stream that a server creates loses data. The
 * library runs on sockets that this program has opened or accepted, and checked.
 */
import * as http2 from "node:http2"
import type { TLSSocket } from "node:tls"
import { CarrierLink, closedByPeer, LinkEnded } from "../../session/Link.ts"
import { CarrierRefused } from "./WebSocketCarrier.ts"
import * as Library from "./WebTransportLibrary.ts"

/**
 * Most bytes in flight in each direction. All four windows must be equal on both sides; otherwise a
 * stream stalls permanently.
 */
export const WINDOW_BYTES = 1024 * 1024
const windows = {
  initialStreamFlowControlWindow: WINDOW_BYTES,
  initialSessionFlowControlWindow: WINDOW_BYTES,
  streamFlowControlWindowSizeLimit: WINDOW_BYTES,
  sessionFlowControlWindowSizeLimit: WINDOW_BYTES,
  initialBidirectionalStreams: 1,
  initialUnidirectionalStreams: 1,
  initialBidirectionalSendStreams: 1,
  initialUnidirectionalSendStreams: 1
} as const

/** HTTP/2 settings of both ends (draft-ietf-webtrans-http2, section 11.2). */
export const settings: http2.SecureServerOptions = {
  settings: {
    enableConnectProtocol: true,
    enablePush: false,
    initialWindowSize: WINDOW_BYTES,
    maxConcurrentStreams: 4,
    maxHeaderListSize: 8192,
    customSettings: { 0x2b61: WINDOW_BYTES, 0x2b62: WINDOW_BYTES, 0x2b63: WINDOW_BYTES, 0x2b64: 1, 0x2b65: 1 }
  },
  remoteCustomSettings: [0x2b61, 0x2b62, 0x2b63, 0x2b64, 0x2b65],
  maxSessionInvalidFrames: 20,
  maxHeaderListPairs: 64
}

/**
 * Longest incomplete capsule that the library may keep. It keeps only control capsules whole, and
 * those are short.
 */
const MAX_CAPSULE_BYTES = 4096
/**
 * Most pieces that may wait in a paused stream. The window bounds their bytes, but nothing bounds
 * the number of empty ones.
 */
const MAX_WAITING_PIECES = 8192

const ignore = () => {}

class WebTransportLink extends CarrierLink {
  readonly carrier = "webtransport-h2"
  private readonly session: Library.Session
  private readonly native: Library.NativeSession
  private readonly http2: http2.Http2Session | undefined
  private readonly reader
  private readonly writer
  private writingBytes = 0
  /** Rejections of the writes in progress. */
  private readonly writers = new Set<(ended: LinkEnded) => void>()
  private lastWrite: Promise<void> = Promise.resolve()
  /** Wakes the read loop while it waits for `resume`. */
  private wake: (() => void) | undefined
  private stopped = false

  constructor(
    session: Library.Session,
    native: Library.NativeSession,
    bidi: Library.Bidi,
    remote: string,
    certSha256: Uint8Array
  ) {
    super(remote, certSha256)
    this.session = session
    this.native = native
    this.http2 = native.stream.session
    this.reader = bidi.readable.getReader()
    this.writer = bidi.writable.getWriter()
    this.reader.closed.catch(ignore)
    this.writer.closed.catch(ignore)
    this.writer.ready.catch(ignore)
    session.closed.then((info) => this.finish(closedByPeer(info.closeCode, info.reason)), () => this.finish())
    this.pump().then(() => this.finish(), () => this.finish())
  }

  bufferedBytes(): number {
    return this.writingBytes + this.native.stream.writableLength
  }

  /**
   * Writes bytes. The library accepts any amount, so this waits until HTTP/2 has room again. The
   * library never settles writes that are pending when the link ends, so ending the link rejects
   * them.
   */
  protected async send(bytes: Uint8Array): Promise<void> {
    this.writingBytes += bytes.length
    try {
      await new Promise<void>((resolve, reject) => {
        this.writers.add(reject)
        this.lastWrite = this.writer.write(bytes)
        this.lastWrite.then(resolve, reject).finally(() => this.writers.delete(reject)).catch(ignore)
      })
    } finally {
      this.writingBytes -= bytes.length
    }
    if (this.native.stream.writableNeedDrain) await drained(this.native.stream)
  }

  /**
   * Sends the close notice. It is called only once: a second `session.close()` while data is queued
   * sends the library into an endless loop. It waits for earlier writes, which the library would
   * otherwise write after the close.
   */
  protected sendClose(code: number, reason: string): void {
    this.resume()
    this.lastWrite.catch(ignore).then(() => this.session.close({ closeCode: code, reason })).catch(() => this.finish())
  }

  protected destroySocket(): void {
    this.wake?.()
    for (const reject of this.writers) reject(new LinkEnded("the link has ended"))
    this.writers.clear()
    this.http2?.destroy()
  }

  protected pause(): void {
    this.stopped = true
    for (const stream of this.native.capsParser.wtstreams.values()) stream.stopReading()
  }

  protected resume(): void {
    this.stopped = false
    for (const stream of this.native.capsParser.wtstreams.values()) stream.startReading()
    this.wake?.()
  }

  private async pump(): Promise<void> {
    for (;;) {
      if (this.stopped) {
        await new Promise<void>((resolve) => {
          this.wake = resolve
        })
      }
      const { done, value } = await this.reader.read()
      if (done) return
      this.deliver(value)
    }
  }
}

const drained = (stream: http2.Http2Stream): Promise<void> =>
  new Promise((resolve, reject) => {
    const end = () => {
      stream.off("drain", onDrain)
      reject(new LinkEnded("the connection was lost"))
    }
    const onDrain = () => {
      stream.off("close", end)
      resolve()
    }
    if (stream.destroyed) return reject(new LinkEnded("the connection was lost"))
    stream.once("drain", onDrain)
    stream.once("close", end)
  })

/**
 * Protects against misbehaving peers. The library throws inside event listeners on malformed
 * capsules, keeps data that nobody reads, and allows any number of streams. After each read this
 * checks what the library holds, and cuts the connection if a peer does what a link never does.
 */
const guard = (native: Library.NativeSession): void => {
  const parser = native.capsParser
  const cut = () => native.stream.session?.destroy()
  const parse = parser.parseData.bind(parser)
  const drain = parser.drainWrites.bind(parser)
  parser.parseData = (data) => {
    try {
      parse(data)
    } catch {
      return cut()
    }
    const waiting = [...parser.wtstreams.values()].reduce((sum, stream) => sum + stream.incomdata.length, 0)
    if (
      parser.wtstreams.size > 1 || waiting > MAX_WAITING_PIECES || (parser.saveddata?.length ?? 0) > MAX_CAPSULE_BYTES
    ) cut()
  }
  parser.drainWrites = () => {
    try {
      drain()
    } catch {
      cut()
    }
  }
}

const quiet = (session: Library.Session): void => {
  session.closed.catch(ignore)
  session.draining.catch(ignore)
}

type OnLink = (link: CarrierLink) => void

/**
 * Returns a function that accepts WebTransport sessions. It uses the library's server object
 * without its listener: streams of our own HTTP/2 server are handed to it one by one, after their
 * path was checked. `onLink` is called when the client has created its stream.
 */
export const makeAcceptor = async (
  tls: { readonly cert: string; readonly key: string },
  paths: ReadonlyArray<string>
) => {
  const library = await Library.get()
  const waiting = new Map<http2.ServerHttp2Stream, { remote: string; sha256: Uint8Array; onLink: OnLink }>()
  class HandedOver extends library.Http2Server {
    override onHttpWTSessionVisitor = (event: { readonly session: Library.NativeSession }): void => {
      library.Http2Server.prototype.onHttpWTSessionVisitor.call(this, event)
      const { jsobj: session, stream } = event.session
      const entry = waiting.get(stream)
      if (session === undefined || entry === undefined) return
      guard(event.session)
      quiet(session)
      accepted(session, event.session, entry.remote, entry.sha256).then(entry.onLink, () => stream.session?.destroy())
    }
  }
  // The listener is never started, so these options are never used.
  const server = new HandedOver({
    port: 0,
    host: "127.0.0.1",
    secret: "unused",
    cert: tls.cert,
    privKey: tls.key,
    ...windows
  })
  await server.createTransportInt()
  for (const path of paths) server.transportInt.addPath(path)
  return (
    stream: http2.ServerHttp2Stream,
    headers: object,
    remote: string,
    sha256: Uint8Array,
    onLink: OnLink
  ): void => {
    waiting.set(stream, { remote, sha256, onLink })
    try {
      server.transportInt.serverInt.emit("stream", stream, headers)
    } catch {
      stream.session?.destroy()
    } finally {
      waiting.delete(stream)
    }
  }
}

const accepted = async (
  session: Library.Session,
  native: Library.NativeSession,
  remote: string,
  sha256: Uint8Array
) => {
  await session.ready
  const streams = session.incomingBidirectionalStreams.getReader()
  streams.closed.catch(ignore)
  const { done, value } = await streams.read()
  if (done) throw new LinkEnded("no stream came")
  return new WebTransportLink(session, native, value, remote, sha256)
}

/**
 * Opens a link over `socket`, which it owns from now on. The socket has been checked, and no other
 * connection is made.
 */
export const open = async (
  socket: TLSSocket,
  authority: string,
  path: string,
  serverCertSha256: Uint8Array
): Promise<CarrierLink> => {
  const library = await Library.get()
  const remote = `${socket.remoteAddress}:${socket.remotePort}`
  const lost = new Promise<never>((_, reject) =>
    socket.once("close", () => reject(new LinkEnded("the server closed the connection")))
  )
  lost.catch(ignore)
  let status = 0
  class OverSocket extends library.WebTransport {
    override createClient(options: object): Library.ClientParts { // called by the constructor
      const parts = library.WebTransport.prototype.createClient.call(this, options)
      quiet(parts.sessionint)
      const make = parts.client.args.createReliableClient
      parts.client.args.createReliableClient = (client) => {
        const transport = make(client)
        transport.createTransport = () => connectOver(transport, socket, authority, (answered) => (status = answered))
        const openSession = transport.openWTSession.bind(transport)
        transport.openWTSession = (path) => {
          openSession(path)
          if (parts.sessionint.objint !== undefined) guard(parts.sessionint.objint)
        }
        return transport
      }
      return parts
    }
  }
  try {
    const { sessionint: session, ready } = new OverSocket(`https://${authority}${path}`, {
      forceReliable: true,
      ...windows
    })
    session.closed.catch(ignore)
    await Promise.race([ready, lost])
    if (session.objint === undefined) throw new LinkEnded("the server closed the connection")
    return new WebTransportLink(
      session,
      session.objint,
      await session.createBidirectionalStream(),
      remote,
      serverCertSha256
    )
  } catch (error) {
    socket.destroy()
    throw status >= 300 ? new CarrierRefused(status) : error
  }
}

/**
 * Connects the library's client over `socket`. The library itself would open another socket, and
 * would accept any certificate that the system trusts, whatever hash it was given.
 */
const connectOver = (
  transport: Library.ClientTransport,
  socket: TLSSocket,
  authority: string,
  onStatus: (status: number) => void
): void => {
  const session = http2.connect(`https://${authority}`, { ...settings, createConnection: () => socket })
  const request = session.request.bind(session)
  session.request = (...args) => request(...args).once("response", (headers) => onStatus(headers[":status"] ?? 0))
  transport.clientInt = session
  session.once("connect", () => {
    session.setLocalWindowSize(2 * WINDOW_BYTES)
    transport.jsobj.onClientConnected({ success: true })
  })
  session.on("error", () => {
    if (session.connecting) transport.jsobj.onClientConnected({ success: false })
  })
  session.on("remoteSettings", (remote) => {
    if (remote.enableConnectProtocol === true) transport.jsobj.onClientWebTransportSupport({})
  })
}
