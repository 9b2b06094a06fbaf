/** Opens a link to a relay over WebTransport on HTTP/3: UDP, QUIC with the web's certificates, and a request. */
import type { Config } from "@infisical/quic/dist/native/index.js"
import { Either } from "effect"
import { X509Certificate } from "node:crypto"
import * as dns from "node:dns"
import { readFileSync } from "node:fs"
import { isIP, isIPv6 } from "node:net"
import * as tls from "node:tls"
import type { RelayTrust } from "../../protocol/EnrolmentToken.ts"
import * as Crypto from "../../services/Crypto.ts"
import * as Pki from "../../services/Pki.ts"
import { CarrierRefused } from "../link/WebSocketCarrier.ts"
import * as UdpPort from "../udp/UdpPort.ts"
import { Http3Connection } from "./Http3Connection.ts"
import { Http3Link } from "./Http3Link.ts"
import * as QuicheHttp3 from "./QuicheHttp3.ts"

export interface Target {
  /** A name or an IP literal, without brackets. */
  readonly host: string
  readonly port: number
  /** What the name meant last. */
  readonly lastAddresses?: ReadonlyArray<string> | undefined
  readonly trust: RelayTrust
  readonly path: string
  /** Epoch ms, for the certificate's dates. */
  readonly nowMs: number
}

export interface Opened {
  readonly link: Http3Link
  readonly localHost: string
}

/** Links of this path carry relayed frames (`LinkServer`). */
const RELAY_PATH = "/relay"
/** The end of the connection has been told by then. */
const SOCKET_LINGER_MS = 500

/** Rejects with an `Error` whose message says why, or `CarrierRefused`. An abort leaves nothing open. */
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

const openAt = (target: Target, address: string, signal: AbortSignal): Promise<Opened> =>
  new Promise<Opened>((resolve, reject) => {
    const quic = QuicheHttp3.connect(configFor(target.trust), isIP(target.host) === 0 ? target.host : null)
    const { port } = target
    let socket: UdpPort.UdpPort | undefined
    let why = "nothing answers"
    const fail = (error: unknown) => {
      reject(error)
      link.destroy("it could not be opened")
    }
    const connection = new Http3Connection({
      role: "client",
      quic,
      now: () => performance.now(),
      transmit: (_slot, buffer, length, segment) => socket?.sendTrain(buffer, length, segment, port, address),
      events: {
        onEstablished: () => {
          const der = quic.peerCertificate()
          const problem = der === null ? "the relay showed no certificate" : problemOf(target, der)
          if (problem !== null || der === null) {
            fail(new Error(problem ?? ""))
            return false
          }
          link.serverCertSha256 = Crypto.sha256(der)
          return true
        },
        onRequest: ignore,
        onStatus: (status) => {
          if (status !== 200) return fail(new CarrierRefused(status))
          link.datagrams?.start()
          resolve({ link, localHost: socket?.address().host ?? "" })
        },
        onBytes: (bytes) => link.onBytes(bytes),
        onDatagram: (bytes) => link.datagrams?.onDatagram(bytes),
        onDrain: ignore,
        onEnd: (closed) => {
          why = quic.fault()?.reason || why
          link.onEnd(closed)
          reject(new Error(why))
        },
        onGone: () => socket?.close()
      }
    })
    const remote = `${isIPv6(address) ? `[${address}]` : address}:${port}`
    const link = new Http3Link(connection, remote, target.path === RELAY_PATH, () => {
      setTimeout(() => socket?.close(), SOCKET_LINGER_MS).unref()
    })
    signal.addEventListener("abort", () => fail(new Error("given up")), { once: true })
    UdpPort.open({
      host: isIPv6(address) ? "::" : "0.0.0.0",
      port: 0,
      family: isIPv6(address) ? 6 : 4,
      segment: QuicheHttp3.MAX_PACKET,
      joined: false, // QUIC's packets do not tell where they end
      peer: { host: address, port },
      onMessage: (packet) => connection.driver.receive(0, packet),
      onError: fail // the port is closed, or there is no way to it
    }).then((opened) => {
      if (link.isClosed()) return opened.close()
      socket = opened
      connection.request(isIPv6(target.host) ? `[${target.host}]:${port}` : `${target.host}:${port}`, target.path)
      connection.driver.schedule()
    }, fail)
  })

const ignore = () => {}

/** What is wrong with the certificate; null: nothing. Its chain was looked at by TLS where authorities are trusted. */
const problemOf = ({ host, nowMs, trust }: Target, der: Uint8Array): string | null => {
  if (trust._tag === "Pin") {
    const checked = Pki.checkLeaf(der, trust.key, nowMs)
    return Either.isLeft(checked) ? checked.left.message : null
  }
  if (isIP(host) === 0) return null // TLS has compared the name
  return new X509Certificate(der).checkIP(host) === undefined ? `the certificate is not for ${host}` : null
}

let configs: { readonly pinned: Config; readonly trusted: Config } | undefined

const configFor = (trust: RelayTrust): Config => {
  configs ??= { pinned: QuicheHttp3.clientConfig(null), trusted: QuicheHttp3.clientConfig(authorities()) }
  return trust._tag === "Pin" ? configs.pinned : configs.trusted
}

/** Those that Node trusts. */
const authorities = (): string => {
  const more = process.env["NODE_EXTRA_CA_CERTS"]
  try {
    return [...tls.rootCertificates, ...(more === undefined ? [] : [readFileSync(more, "utf8")])].join("\n")
  } catch {
    return tls.rootCertificates.join("\n")
  }
}
