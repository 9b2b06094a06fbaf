/**
 * Dials a relay: TCP (through a proxy if there is one), TLS 1.3, and the check of who answered, on
 * the very socket that is then used.
 */
import { Either } from "effect"
import * as dns from "node:dns"
import * as net from "node:net"
import type { Duplex } from "node:stream"
import * as tls from "node:tls"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type { ProxyUrl } from "../../protocol/relay/ProxyUrl.ts"
import type { RelayTrust } from "../../protocol/trust/EnrolmentToken.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as Pki from "../../services/identity/Pki.ts"
import * as Authorities from "./Authorities.ts"
import * as ProxyDial from "./ProxyDial.ts"

/** A relay, and how to reach and verify it. */
export interface Target {
  /** A name, or an IP literal without brackets. */
  readonly host: string
  readonly port: number
  /**
   * Addresses to which the name resolved before. They are used if the resolver fails or does not
   * answer.
   */
  readonly lastAddresses?: ReadonlyArray<string> | undefined
  readonly trust: RelayTrust
  readonly alpn: "h2" | "http/1.1"
  readonly proxy?: ProxyUrl | null
  /**
   * PEM file with certificate authorities in addition to the public ones. `null` if there is none.
   */
  readonly ca?: string | null | undefined
}

/**
 * Error when the relay could not be dialled. `reason` is one of `LinkError`; `code` is the
 * system's, TLS's or the proxy's.
 */
export class DialFailed extends Error {
  override readonly name = "DialFailed"
  readonly reason:
    | "unreachable"
    | "proxy_refused"
    | "proxy_login"
    | "tls_failed"
    | "tls_untrusted"
    | "tls_intercepted"
    | "tls_pin_mismatch"
  readonly code: string
  constructor(reason: DialFailed["reason"], code: string, message: string) {
    super(message)
    this.reason = reason
    this.code = code
  }
}

/** A TLS connection, with the SHA-256 of the server's leaf certificate. */
export interface Dialled {
  readonly socket: tls.TLSSocket
  readonly certSha256: Uint8Array
  /**
   * Fault of the certificate that only the pinned key can heal, by endorsing the certificate in the
   * link's handshake. `null` if the certificate proves the relay.
   */
  readonly unproved: DialFailed | null
}

/** Dials `target`. Rejects with `DialFailed`. An abort destroys whatever is open. */
export const dial = async (target: Target, signal: AbortSignal): Promise<Dialled> => {
  const authorities = authoritiesOf(target)
  const tcp = await connectTcp(target, signal)
  const socket = await startTls(tcp, target, authorities, signal)
  const der = leafDerOf(socket)
  const refuse = (error: DialFailed): never => {
    socket.destroy()
    throw error
  }
  if (der === undefined) return refuse(new DialFailed("tls_failed", "", "the relay showed no certificate"))
  let unproved: DialFailed | null = null
  if (target.trust._tag === "Pin") {
    const checked = Pki.checkLeaf(der, target.trust.key)
    if (Either.isLeft(checked)) {
      const { message, reason } = checked.left
      if (reason !== "foreign") return refuse(new DialFailed("tls_untrusted", reason, message))
      const shown = Pki.describe(der)
      if (shown.isOfRelay) return refuse(new DialFailed("tls_pin_mismatch", reason, message))
      unproved = new DialFailed("tls_intercepted", reason, intercepted(target, shown))
    }
  }
  return { socket, certSha256: Crypto.sha256(der), unproved }
}

/**
 * Leaf certificate of the peer, in DER. Does not use `getPeerX509Certificate`, whose first call on
 * Node 20 empties the socket's certificate for all later calls.
 */
const leafDerOf = (socket: tls.TLSSocket): Uint8Array | undefined => {
  const raw = socket.getPeerCertificate().raw as Buffer | undefined
  return raw === undefined || raw.length === 0 ? undefined : raw
}

/**
 * Returns the message for a certificate that does not belong to any relay, but to a captive portal
 * or to a firewall that intercepts TLS. For another relay's certificate, the reason is
 * `tls_pin_mismatch`.
 */
export const intercepted = ({ host, port }: Pick<Target, "host" | "port">, { issuer, subject }: Pki.Shown): string =>
  `another server answered in place of the relay ${
    renderHostPort({ host, port })
  }: its certificate is for ${subject}, issued by ${issuer}; ` +
  "if this network has a sign-in page, sign in there; if a firewall opens TLS here, exempt the relay from that"

const connectTcp = (target: Target, signal: AbortSignal): Promise<Duplex> =>
  target.proxy === null || target.proxy === undefined
    ? connectDirect(target, signal)
    : ProxyDial.open(target.proxy, target, signal).catch((error: unknown) => {
      throw error instanceof ProxyDial.ProxyFailed
        ? new DialFailed(PROXY_REASONS[error.reason], error.code, error.message)
        : error
    })

const PROXY_REASONS = {
  unreachable: "unreachable",
  login: "proxy_login",
  refused: "proxy_refused",
  unlike: "proxy_refused"
} as const

/** How long the resolver may take before the last known addresses are used. */
const RESOLVER_PATIENCE_MS = 2_000

/** Lookup that asks the system's resolver and falls back to the last known addresses. */
const lookupOr = (last: ReadonlyArray<string>): net.LookupFunction => (host, options, done) => {
  if (last.length === 0) return dns.lookup(host, options, done)
  const addresses = last.map((address) => ({ address, family: net.isIP(address) }))
  let answered = false
  const answer: typeof done = (...found) => {
    clearTimeout(timer)
    if (!answered) done(...found)
    answered = true
  }
  const fallBack = () =>
    options.all === true ? answer(null, addresses) : answer(null, addresses[0]!.address, addresses[0]!.family)
  const timer = setTimeout(fallBack, RESOLVER_PATIENCE_MS)
  dns.lookup(host, options, (error, found, family) => error === null ? answer(null, found, family) : fallBack())
}

const connectDirect = ({ host, lastAddresses = [], port }: Target, signal: AbortSignal): Promise<net.Socket> =>
  new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, noDelay: true, lookup: lookupOr(lastAddresses) })
    const abort = () => void socket.destroy(new Error("aborted"))
    signal.addEventListener("abort", abort, { once: true })
    socket.once("error", (error: NodeJS.ErrnoException) => reject(unreachable(`${host}:${port}`, error)))
    socket.once("connect", () => {
      signal.removeEventListener("abort", abort)
      socket.removeAllListeners("error")
      resolve(socket)
    })
  })

const unreachable = (where: string, error: NodeJS.ErrnoException) =>
  new DialFailed(
    "unreachable",
    error.code ?? "",
    `cannot reach ${where} (${
      error.code ?? error.message
    }); check the relay's host and port, that it runs, and this machine's network`
  )

const authoritiesOf = ({ ca = null, trust }: Target): Array<string> | undefined => {
  if (ca === null || trust._tag === "Pin") return undefined
  try {
    return Authorities.withFile(ca)
  } catch {
    throw new DialFailed("tls_untrusted", "", `cannot read ${ca}; correct ca in the configuration, or the file's mode`)
  }
}

const startTls = (
  tcp: Duplex,
  target: Target,
  authorities: Array<string> | undefined,
  signal: AbortSignal
): Promise<tls.TLSSocket> =>
  new Promise((resolve, reject) => {
    const socket = tls.connect({
      socket: tcp,
      ALPNProtocols: [target.alpn],
      minVersion: "TLSv1.3",
      ...(authorities !== undefined && { ca: authorities }),
      // A pinned leaf certificate is checked afterwards.
      rejectUnauthorized: target.trust._tag !== "Pin",
      ...(net.isIP(target.host) === 0 && { servername: target.host }),
      // Node takes the name from `servername` or from the connected socket, which is wrong behind a
      // proxy.
      checkServerIdentity: (_, cert) => tls.checkServerIdentity(target.host, cert)
    })
    const abort = () => void socket.destroy(new Error("aborted"))
    signal.addEventListener("abort", abort, { once: true })
    socket.once("error", (error: NodeJS.ErrnoException) => {
      tcp.destroy()
      reject(tlsProblem(target, error))
    })
    socket.once(
      "close",
      () => reject(new DialFailed("tls_failed", "", "the relay ended the connection before TLS was up"))
    )
    socket.once("secureConnect", () => {
      signal.removeEventListener("abort", abort)
      socket.removeAllListeners("error")
      socket.on("error", () => {}) // a close event follows
      resolve(socket)
    })
  })

const UNTRUSTED = /CERT|SELF_SIGNED|UNABLE_TO_|ALTNAME/
/** OpenSSL's errors for a certificate whose dates do not fit this machine's clock. */
const UNTIMELY = /^CERT_(?:HAS_EXPIRED|NOT_YET_VALID)$/

const tlsProblem = (target: Target, error: NodeJS.ErrnoException): DialFailed => {
  const code = error.code ?? ""
  if (UNTIMELY.test(code)) {
    return new DialFailed(
      "tls_untrusted",
      code,
      `the certificate of ${target.host} ${untimelyText(code === "CERT_HAS_EXPIRED")}`
    )
  }
  return UNTRUSTED.test(code)
    ? new DialFailed(
      "tls_untrusted",
      code,
      `the certificate of ${target.host} is not trusted (${code}); check the host, name the file of its authority with the key ca, or enrol with a token that pins the relay's key`
    )
    : new DialFailed(
      "tls_failed",
      code,
      `TLS 1.3 with ${target.host}:${target.port} failed (${code || error.message}); is that the relay's HTTPS port?`
    )
}

/**
 * Explains a certificate that is outside its validity period. This machine's own clock judges
 * certificates of public authorities, because there is no trusted time yet.
 */
export const untimelyText = (hasExpired: boolean): string => {
  const now = new Date().toISOString().slice(0, 19)
  return hasExpired
    ? `has expired by this machine's clock (now ${now}Z); set the clock if it is wrong, else renew the relay's certificate`
    : `is not valid yet by this machine's clock (now ${now}Z); set the clock`
}
