/** Opens an authenticated link to a relay. */
import { Context, Duration, Effect, Schema, type Scope } from "effect"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import { endorsedBytes, type Enrol, proxiedName, type Purpose } from "../../protocol/relay/LinkHandshake.ts"
import * as ProxyUrl from "../../protocol/relay/ProxyUrl.ts"
import type { RelayTrust } from "../../protocol/trust/EnrolmentToken.ts"
import { toBytes } from "../../protocol/trust/NodeKey.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as ClientHandshake from "../../session/ClientHandshake.ts"
import { type CarrierLink, type Link, LinkEnded } from "../../session/Link.ts"
import * as Ways from "../../session/Ways.ts"
import * as TlsDial from "../carrier/TlsDial.ts"
import * as WebSocketCarrier from "../carrier/WebSocketCarrier.ts"
import * as WebTransportCarrier from "../carrier/WebTransportCarrier.ts"

/**
 * Error when a link could not be opened.
 *
 * - `proxy_refused`: the proxy refused, or it is not a proxy.
 * - `proxy_login`: the proxy requires a different login.
 * - `proxy_unusable`: the proxy's URL is invalid.
 * - `tls_pin_mismatch`: another relay answered.
 * - `tls_intercepted`: something that is not a relay answered, such as a captive portal.
 * - `tls_untrusted`: the certificate is outside its validity period or from an unknown authority.
 * - `carrier_refused`: the server refused over HTTP; `code` is the status (503: full, try later).
 * - `handshake_refused`: the relay identified the node and refuses it; `code` is its reason.
 * - `lost`: the connection broke before the link was open.
 */
export class LinkError extends Schema.TaggedError<LinkError>()("LinkError", {
  reason: Schema.Literal(
    "unreachable",
    "proxy_refused",
    "proxy_login",
    "proxy_unusable",
    "tls_failed",
    "tls_untrusted",
    "tls_intercepted",
    "tls_pin_mismatch",
    "carrier_refused",
    "handshake_refused",
    "protocol",
    "timed_out",
    "lost"
  ),
  code: Schema.optional(Schema.String),
  message: Schema.String
}) {}

/** The relay to connect to, and how to reach it. */
export interface Options {
  /** A name, or an IP literal without brackets. */
  readonly host: string
  readonly port: number
  /** Addresses to which the name resolved before. They are used if DNS does not answer. */
  readonly lastAddresses?: ReadonlyArray<string>
  readonly trust: RelayTrust
  /**
   * Carrier to use. `webtransport` uses HTTP/3 if the relay answers over it, otherwise
   * HTTP/2. `auto` uses WebSocket, which is cheaper and passes proxies. For packets, `auto` tries
   * HTTP/3 first if the relay has it.
   */
  readonly carrier: "auto" | "webtransport" | "websocket"
  /** Whether the relay is known to have HTTP/3. `undefined` if it is not known. */
  readonly http3?: boolean | undefined
  /** Whether to use HTTP/3 or nothing, although the relay may answer sooner over TCP. */
  readonly http3Only?: boolean
  readonly purpose: Purpose
  readonly identity: ClientHandshake.Identity
  readonly enrol?: Enrol | undefined
  /** Longest time from the first packet to the Welcome. Default: 10 seconds. */
  readonly deadline?: Duration.DurationInput
  /** The `proxy` setting: a URL or `none`. `null` if the environment decides. */
  readonly proxy?: string | null
  /**
   * The `ca` setting: a PEM file with certificate authorities in addition to the public ones.
   * `null` if there is none.
   */
  readonly ca?: string | null
}

/** An open link, and the content of the relay's Welcome. */
export interface Connected {
  readonly link: Link
  /** Content of the Welcome: the relay's information for a client that it admits. */
  readonly welcome: Uint8Array
  /**
   * Local address of the connection. It may belong to this host only as long as the connection
   * lives.
   */
  readonly localHost: string
}

/** How long opening a link may take, unless the caller gives another deadline. */
const DEFAULT_DEADLINE = Duration.seconds(10)

/**
 * Opens an authenticated link. The scope closes it. An interruption or the deadline leaves nothing
 * open.
 */
export const connect = (options: Options): Effect.Effect<Connected, LinkError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    restore(Effect.timeoutFail(
      Effect.tryPromise({
        try: (signal) => open(options, signal),
        catch: (error) => linkError(error, options)
      }),
      { duration: options.deadline ?? DEFAULT_DEADLINE, onTimeout: () => timedOut(options) }
    )).pipe(
      Effect.tap(({ link }) => Effect.addFinalizer(() => Effect.sync(() => link.close("this node has ended the link"))))
    )
  )

/** Service by which an actor opens its link. Tests replace it. */
export class LinkOpener extends Context.Reference<LinkOpener>()("sallyport/transport/LinkOpener", {
  defaultValue: () => ({ connect })
}) {}

/**
 * Head start of a carrier. If it has not answered after this time, the next one is tried beside it.
 */
const HEAD_START_MS = 300

type Opened = Omit<Connected, "welcome"> & {
  readonly link: CarrierLink
  /** Same as in `TlsDial.Dialled`. */
  readonly unproved: Error | null
}

const open = async (options: Options, signal: AbortSignal): Promise<Connected> => {
  const choice = proxyOf(options)
  if (choice._tag === "Unusable") throw new LinkError({ reason: "proxy_unusable", message: choice.message })
  const proxy = choice._tag === "Proxy" ? choice.proxy : null
  // Only WebSocket passes reverse proxies.
  const isProxied = options.trust._tag === "Proxied"
  const overTcp = options.carrier === "webtransport" && !isProxied ? WEBTRANSPORT : WEBSOCKET
  const tcp = (signal: AbortSignal) => openTcp(options, proxy, overTcp, signal)
  const http3 = (signal: AbortSignal) => openHttp3(options, signal)
  const isHttp3Possible = isHttp3Wanted(options) && proxy === null && !isProxied
  if (options.http3Only && !isHttp3Possible) throw new LinkError({ reason: "unreachable", message: NO_HTTP3 })
  const ways = isHttp3Possible ? (options.http3Only ? [http3] : [http3, tcp]) : [tcp]
  const discard = ({ link }: Opened) => link.destroy("another carrier was faster")
  const { link, localHost, unproved } = await Ways.firstOf(
    ways.map((open) => ({ open, discard })),
    HEAD_START_MS,
    signal
  )
  if (isProxied) link.serverCertSha256 = Crypto.sha256(proxiedName(options.host))
  const abort = () => link.destroy("given up")
  signal.addEventListener("abort", abort, { once: true })
  let isProved = unproved === null
  const checkEndorsed = (endorsements: ReadonlyArray<Uint8Array>) => {
    isProved ||= isEndorsed(options.trust, link.serverCertSha256, endorsements)
    if (!isProved) throw unproved
  }
  try {
    const welcome = await ClientHandshake.asClient(link, { ...options, checkEndorsed })
    return { link, welcome, localHost }
  } catch (error) {
    link.destroy("the handshake failed")
    throw isProved ? error : unproved
  } finally {
    signal.removeEventListener("abort", abort)
  }
}

/** Whether the pinned key has signed the certificate that this connection shows. */
const isEndorsed = (trust: RelayTrust, certSha256: Uint8Array, endorsements: ReadonlyArray<Uint8Array>): boolean =>
  trust._tag === "Pin" &&
  endorsements.some((signature) => Crypto.verify(toBytes(trust.key), endorsedBytes(certSha256), signature))

/** Decides through which proxy a relay is reached. The result is also shown to users. */
export const proxyOf = ({ host, port, proxy }: Pick<Options, "host" | "port" | "proxy">): ProxyUrl.Choice =>
  ProxyUrl.choose({ setting: proxy ?? null, env: process.env, host, port })

const isHttp3Wanted = ({ carrier, http3, purpose }: Options): boolean =>
  (carrier === "webtransport" && http3 !== false) || (carrier === "auto" && purpose === "relay" && http3 === true)

const NO_HTTP3 = "HTTP/3 is not possible by the carrier that is set, through a proxy, or behind a reverse proxy"

const WEBSOCKET = { alpn: "http/1.1", open: WebSocketCarrier.open } as const
const WEBTRANSPORT = { alpn: "h2", open: WebTransportCarrier.open } as const

const openTcp = async (
  { ca, host, lastAddresses, port, purpose, trust }: Options,
  proxy: ProxyUrl.ProxyUrl | null,
  carrier: typeof WEBSOCKET | typeof WEBTRANSPORT,
  signal: AbortSignal
): Promise<Opened> => {
  const { alpn } = carrier
  const { certSha256, socket, unproved } = await TlsDial.dial(
    { ca, host, lastAddresses, port, trust, alpn, proxy },
    signal
  )
  const localHost = (socket.localAddress ?? "").replace(/^::ffff:/, "")
  const abort = () => void socket.destroy()
  signal.addEventListener("abort", abort, { once: true })
  if (signal.aborted) abort()
  try {
    const link = await carrier.open(socket, renderHostPort({ host, port }), `/${purpose}`, certSha256)
    return { link, localHost, unproved }
  } catch (error) {
    socket.destroy()
    throw unproved ?? error // whatever answered here, it was not the relay
  } finally {
    signal.removeEventListener("abort", abort)
  }
}

/**
 * Opens a link over HTTP/3. The module is loaded on demand, because QUIC is a native library that
 * the signaling of most nodes does not need.
 */
const openHttp3 = async (
  { ca, host, lastAddresses, port, purpose, trust }: Options,
  signal: AbortSignal
): Promise<Opened> => {
  const Http3Client = await import("../http3/Http3Client.ts")
  return Http3Client.open({ ca, host, lastAddresses, port, trust, path: `/${purpose}` }, signal)
}

const timedOut = ({ host, port }: Options) =>
  new LinkError({
    reason: "timed_out",
    message:
      `${host}:${port} did not answer in time; check that the relay runs and that no firewall drops the connection`
  })

const linkError = (error: unknown, { host, port }: Options): LinkError => {
  const where = renderHostPort({ host, port })
  if (error instanceof LinkError) return error
  if (error instanceof TlsDial.DialFailed) {
    return new LinkError({ reason: error.reason, code: error.code, message: error.message })
  }
  if (error instanceof ClientHandshake.RefusedByServer) {
    return new LinkError({ reason: "handshake_refused", code: error.code, message: error.message })
  }
  if (error instanceof WebSocketCarrier.CarrierRefused) {
    const remedy = error.status === 503
      ? "it has no room now; try again later"
      : "is that a sallyport relay, and of this version?"
    return new LinkError({
      reason: "carrier_refused",
      code: `${error.status}`,
      message: `${where} answered ${error.status}: ${remedy}`
    })
  }
  if (error instanceof ClientHandshake.BrokenHandshake) {
    return new LinkError({
      reason: "protocol",
      message: `${where} does not speak this protocol (${error.message}); run the same version on both sides`
    })
  }
  const why = error instanceof LinkEnded || error instanceof Error ? error.message : String(error)
  return new LinkError({ reason: "lost", message: `the connection to ${where} broke under way (${why}); try again` })
}
