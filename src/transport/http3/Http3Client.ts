/**
 * Opens a link to a relay over WebTransport on HTTP/3: a UDP socket, QUIC with web certificates,
 * and a request.
 */
import type { Config } from "@infisical/quic/dist/native/index.js"
import { Either } from "effect"
import { X509Certificate } from "node:crypto"
import * as dns from "node:dns"
import { isIP, isIPv6 } from "node:net"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type { RelayTrust } from "../../protocol/trust/EnrolmentToken.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as Pki from "../../services/identity/Pki.ts"
import * as Authorities from "../carrier/Authorities.ts"
import { DialFailed, intercepted } from "../carrier/TlsDial.ts"
import { CarrierRefused } from "../carrier/WebSocketCarrier.ts"
import type { QuicheConnection } from "../quic/engine/QuicheConnection.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import { Http3Connection } from "./Http3Connection.ts"
import { Http3Link } from "./Http3Link.ts"
import * as QuicheHttp3 from "./QuicheHttp3.ts"

/** The relay to connect to, and the path that the request names. */
export interface Target {
  /** A name or an IP literal, without brackets. */
  readonly host: string
  readonly port: number
  /** Addresses to which the name resolved before. They are used if the name cannot be looked up. */
  readonly lastAddresses?: ReadonlyArray<string> | undefined
  readonly trust: RelayTrust
  /**
   * PEM file with certificate authorities in addition to the public ones. `null` if there is none.
   */
  readonly ca?: string | null | undefined
  readonly path: string
}

/** An open link, and this host's address towards the relay. */
export interface Opened {
  readonly link: Http3Link
  readonly localHost: string
  /** Fault of the certificate that only the pinned key can heal; see `TlsDial.Dialled.unproved`. */
  readonly unproved: Error | null
}

/** Path of links that carry relayed frames (`LinkServer`). */
const RELAY_PATH = "/relay"
/**
 * First QUIC error code of TLS (RFC 9000, section 20.1). The rest of the code is TLS's alert (RFC
 * 8446, section 6).
 */
const CRYPTO_ERROR = 0x100
/**
 * Time in milliseconds for which the socket stays open after the link, so that the close notice can
 * leave.
 */
const SOCKET_LINGER_MS = 500

const ignore = () => {}

/**
 * Opens a link. Rejects with `CarrierRefused`, or with an `Error` whose message says why. After an
 * abort nothing stays open.
 */
export const open = async (target: Target, signal: AbortSignal): Promise<Opened> => {
  let last: unknown = new Error(`${target.host} has no address`)
  for (const address of await addressesOf(target)) {
    try {
      return await openAt(target, address, signal)
    } catch (error) {
      last = error
      if (signal.aborted || error instanceof CarrierRefused) break
    }
  }
  throw last
}

const addressesOf = async ({ host, lastAddresses = [] }: Target): Promise<ReadonlyArray<string>> => {
  if (isIP(host) !== 0) return [host]
  try {
    return (await dns.promises.lookup(host, { all: true })).map(({ address }) => address)
  } catch (error) {
    if (lastAddresses.length === 0) throw error
    return lastAddresses
  }
}

const openAt = async (target: Target, address: string, signal: AbortSignal): Promise<Opened> => {
  const attempt = new Attempt(target, address)
  signal.addEventListener("abort", () => attempt.fail(new Error("given up")), { once: true })
  try {
    attempt.begin(await attempt.bind())
  } catch (error) {
    attempt.fail(error)
  }
  return attempt.opened
}

/** One connection, from its socket to its open session. */
class Attempt {
  readonly opened: Promise<Opened>
  readonly #target: Target
  readonly #address: string
  readonly #quic: QuicheConnection
  readonly #connection: Http3Connection
  readonly #link: Http3Link
  #socket: UdpPort.UdpPort | undefined
  #unproved: Error | null = null
  #resolve: (opened: Opened) => void = ignore
  #reject: (error: unknown) => void = ignore

  constructor(target: Target, address: string) {
    this.#target = target
    this.#address = address
    this.opened = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.opened.catch(ignore) // it may fail before anybody waits for it
    this.#quic = QuicheHttp3.connect(configFor(target), isIP(target.host) === 0 ? target.host : null)
    this.#connection = new Http3Connection({
      role: "client",
      quic: this.#quic,
      now: () => performance.now(),
      transmit: (_slot, buffer, length, segment) =>
        this.#socket?.sendTrain(buffer, length, segment, target.port, address)
    })
    const remote = renderHostPort({ host: address, port: target.port })
    this.#link = new Http3Link(this.#connection, remote, target.path === RELAY_PATH, () => {
      setTimeout(() => this.#socket?.close(), SOCKET_LINGER_MS).unref()
    })
    this.#connection.attach({
      onEstablished: () => this.#onEstablished(),
      onRequest: ignore,
      onStatus: (status) => this.#onStatus(status),
      onBytes: (bytes) => this.#link.onBytes(bytes),
      onDatagram: (bytes) => this.#link.datagrams?.onDatagram(bytes),
      onDrain: ignore,
      onEnd: (closed) => {
        this.#link.onEnd(closed)
        this.#reject(new Error(whyOf(this.#quic)))
      },
      onGone: () => this.#socket?.close()
    })
  }

  bind(): Promise<UdpPort.UdpPort> {
    const isV6 = isIPv6(this.#address)
    return UdpPort.open({
      host: isV6 ? "::" : "0.0.0.0",
      port: 0,
      family: isV6 ? 6 : 4,
      segment: QuicheHttp3.MAX_PACKET,
      joined: false, // QUIC packets do not carry their length
      peer: { host: this.#address, port: this.#target.port },
      onMessage: (packet) => this.#connection.driver.receive(0, packet),
      onError: (error) => this.fail(error) // the port is closed, or there is no route to it
    })
  }

  begin(socket: UdpPort.UdpPort): void {
    if (this.#link.isClosed()) return socket.close()
    this.#socket = socket
    const { host, path, port } = this.#target
    this.#connection.request(renderHostPort({ host, port }), path)
    this.#connection.driver.schedule()
  }

  fail(error: unknown): void {
    this.#reject(error)
    this.#link.destroy("it could not be opened, or there is no way to the relay any more")
  }

  #onEstablished(): boolean {
    const der = this.#quic.peerCertificate()
    const problem = der === null ? refused("the relay showed no certificate") : problemOf(this.#target, der)
    if (der === null || (problem !== null && !problem.mayBeEndorsed)) {
      this.fail(new Error(problem?.message))
      return false
    }
    this.#unproved = problem === null
      ? null
      : new DialFailed("tls_intercepted", "", intercepted(this.#target, Pki.describe(der)))
    this.#link.serverCertSha256 = Crypto.sha256(der)
    return true
  }

  #onStatus(status: number): void {
    if (status !== 200) return this.fail(new CarrierRefused(status))
    this.#link.datagrams?.start()
    this.#resolve({
      link: this.#link,
      localHost: this.#socket?.address().host ?? "",
      unproved: this.#unproved
    })
  }
}

const whyOf = (quic: QuicheConnection): string => {
  const fault = quic.fault()
  if (fault === null) return "nothing answers"
  const isTls = !fault.application && fault.code >= CRYPTO_ERROR && fault.code <= CRYPTO_ERROR + 0xff
  return isTls
    ? `TLS failed with alert ${fault.code - CRYPTO_ERROR}`
    : fault.reason || `QUIC failed with code ${fault.code}`
}

interface Problem {
  readonly message: string
  /** Whether the pinned key may still endorse the certificate in the link's handshake. */
  readonly mayBeEndorsed: boolean
}

const refused = (message: string): Problem => ({ message, mayBeEndorsed: false })

/**
 * Checks the certificate. Returns the problem, or `null` if there is none. If authorities are
 * trusted, TLS has already checked the chain.
 */
const problemOf = ({ host, trust }: Target, der: Uint8Array): Problem | null => {
  if (trust._tag === "Pin") {
    const checked = Pki.checkLeaf(der, trust.key)
    if (Either.isRight(checked)) return null
    const { message, reason } = checked.left
    return { message, mayBeEndorsed: reason === "foreign" && !Pki.describe(der).isOfRelay }
  }
  if (isIP(host) === 0) return null // TLS has compared the name
  return new X509Certificate(der).checkIP(host) === undefined ? refused(`the certificate is not for ${host}`) : null
}

/** Configurations by the PEM text of their authorities, which is empty for pinned keys. */
const configs = new Map<string, Config>()

const configFor = ({ ca = null, trust }: Target): Config => {
  const authorities = trust._tag === "Pin" ? [] : ca === null ? Authorities.usual() : Authorities.withFile(ca)
  const key = authorities.join("\n")
  const known = configs.get(key)
  if (known !== undefined) return known
  configs.clear() // a replaced file of authorities must not leave its configuration behind for good
  const made = QuicheHttp3.clientConfig(key === "" ? null : key)
  configs.set(key, made)
  return made
}
