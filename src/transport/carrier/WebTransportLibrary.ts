/**
 * Loads `@fails-components/webtransport` when it is first needed, and suppresses its warnings about
 * the missing HTTP/3 package. It also declares the private parts that the carrier relies on. They
 * belong to exactly the version that package.json pins.
 */
import type { Http2Session, ServerHttp2Stream } from "node:http2"
import type { ReadableStream, WritableStream } from "node:stream/web"

export interface Bidi {
  readonly readable: ReadableStream<Uint8Array>
  readonly writable: WritableStream<Uint8Array>
}

/** One WebTransport stream below its web streams: the sending and the receiving half. */
export interface NativeStream {
  readonly incomdata: { readonly length: number }
  /**
   * Stops reading. Until `startReading`, received bytes wait and the peer's window is not renewed.
   */
  readonly stopReading: () => void
  readonly startReading: () => void
}

/** Parser of a session's capsules. `wtstreams` holds the session's streams by id. */
export interface Parser {
  parseData: (data: Buffer) => void
  drainWrites: () => void
  readonly saveddata?: Buffer
  readonly wtstreams: Map<bigint, NativeStream>
}

/** A session below its web streams: its HTTP/2 stream and its parser. */
export interface NativeSession {
  readonly stream: ServerHttp2Stream
  readonly capsParser: Parser
  jsobj?: Session
}

/** Session object of either end. `state` is `connected`, `draining`, `closed` or `failed`. */
export interface Session {
  readonly ready: Promise<void>
  readonly closed: Promise<{ readonly closeCode: number; readonly reason: string }>
  readonly draining: Promise<unknown>
  readonly state: string
  readonly incomingBidirectionalStreams: ReadableStream<Bidi>
  readonly createBidirectionalStream: () => Promise<Bidi>
  readonly close: (info: { readonly closeCode: number; readonly reason: string }) => void
  readonly objint?: NativeSession
}

/** The library's own HTTP/2 connection, below a client object. */
export interface ClientTransport {
  createTransport: () => void
  openWTSession: (path: string) => void
  clientInt: Http2Session
  jsobj: {
    readonly onClientConnected: (result: { readonly success: boolean }) => void
    readonly onClientWebTransportSupport: (_: object) => void
  }
}
/** The library's own HTTP/2 listener, below a server object. */
export interface ServerTransport {
  readonly addPath: (path: string) => void
  readonly serverInt: { readonly emit: (event: "stream", stream: ServerHttp2Stream, headers: object) => boolean }
}

export interface ServerObject {
  transportInt: ServerTransport
  readonly createTransportInt: () => Promise<void>
  readonly onHttpWTSessionVisitor: (event: { readonly session: NativeSession }) => void
}
/** Parts of a client object: its session and its factory of transports. */
export interface ClientParts {
  readonly sessionint: Session
  readonly client: { readonly args: { createReliableClient: (client: unknown) => ClientTransport } }
}
export interface ClientObject {
  readonly sessionint: Session
  readonly ready: Promise<void>
  createClient(options: object): ClientParts
}

interface Class<A, Args extends ReadonlyArray<unknown>> {
  new(...args: Args): A
  readonly prototype: A
}

/** The classes of the library that the carrier extends. */
export interface Library {
  readonly Http2Server: Class<ServerObject, [options: object]>
  readonly WebTransport: Class<ClientObject, [url: string, options: object]>
}

const COMPLAINTS = [
  "Problem loading http3-quiche transport",
  "Did you install @fails-components/webtransport",
  "http3 loader:"
]

type Print = (...args: Array<unknown>) => void

const load = async (): Promise<Library> => {
  const sink = globalThis.console
  const unlessComplaint = (print: Print): Print => (...args) => {
    if (typeof args[0] !== "string" || !COMPLAINTS.some((complaint) => (args[0] as string).startsWith(complaint))) {
      print.apply(sink, args)
    }
  }
  const error = Reflect.get(sink, "error") as Print
  const log = Reflect.get(sink, "log") as Print
  sink.error = unlessComplaint(error)
  sink.log = unlessComplaint(log)
  try {
    const library = await import("@fails-components/webtransport")
    await library.quicheLoaded
    // the server half prints its warning a moment later
    await new Promise((resolve) => setTimeout(resolve, 0))
    return library
  } finally {
    sink.error = error
    sink.log = log
  }
}

let loaded: Promise<Library> | undefined
/** Loads the library, once. */
export const get = (): Promise<Library> => loaded ??= load()
