/**
 * `@fails-components/webtransport`, loaded when first needed and without its complaints about the absent HTTP/3 package, and the
 * private parts of it that the carrier relies on. They belong to exactly the version that package.json pins.
 */
import type { Http2Session, ServerHttp2Stream } from "node:http2"
import type { ReadableStream, WritableStream } from "node:stream/web"

export interface Bidi {
  readonly readable: ReadableStream<Uint8Array>
  readonly writable: WritableStream<Uint8Array>
}

/** The sending and receiving half of one WebTransport stream, below its web streams. */
export interface NativeStream {
  readonly incomdata: { readonly length: number }
  /** Until `startReading`, received bytes wait and the peer's window is not renewed. */
  readonly stopReading: () => void
  readonly startReading: () => void
}

export interface Parser {
  parseData: (data: Buffer) => void
  drainWrites: () => void
  readonly saveddata?: Buffer
  readonly wtstreams: Map<bigint, NativeStream>
}

export interface NativeSession {
  readonly stream: ServerHttp2Stream
  readonly capsParser: Parser
  jsobj?: Session
}

/** Both ends' session object. `state` is `connected`, `draining`, `closed` or `failed`. */
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

/** The transport below a client or a server object: the library's own HTTP/2 connection or listener. */
export interface ClientTransport {
  createTransport: () => void
  openWTSession: (path: string) => void
  clientInt: Http2Session
  jsobj: {
    readonly onClientConnected: (result: { readonly success: boolean }) => void
    readonly onClientWebTransportSupport: (_: object) => void
  }
}
export interface ServerTransport {
  readonly addPath: (path: string) => void
  readonly serverInt: { readonly emit: (event: "stream", stream: ServerHttp2Stream, headers: object) => boolean }
}

export interface ServerObject {
  transportInt: ServerTransport
  readonly createTransportInt: () => Promise<void>
  readonly onHttpWTSessionVisitor: (event: { readonly session: NativeSession }) => void
}
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
    await new Promise((resolve) => setTimeout(resolve, 0)) // the server half complains a moment later
    return library
  } finally {
    sink.error = error
    sink.log = log
  }
}

let loaded: Promise<Library> | undefined
export const get = (): Promise<Library> => loaded ??= load()
