/**
 * Makes QUIC connections for HTTP/3: with web certificates, windows for one stream, and limits for
 * an unknown peer.
 */
import type { Config } from "@infisical/quic/dist/native/index.js"
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { native } from "../quic/engine/Binding.ts"
import { SLOTS } from "../quic/engine/QuicEngine.ts"
import { ARRIVALS, type ConnectionIds, ID_BYTES, QuicheConnection } from "../quic/engine/QuicheConnection.ts"

const ALPN = "h3"
/**
 * Time in milliseconds without any packet, keepalives included, after which the peer counts as
 * gone.
 */
export const IDLE_TIMEOUT_MS = 45_000
/**
 * Largest QUIC packet in bytes. It is 1,280 bytes on the wire over IPv4, which any network carries.
 */
export const MAX_PACKET = 1252
/** Most bidirectional streams that a peer may open: those of one link, and a few extra. */
const MAX_BIDI = 4
/**
 * Most unidirectional streams that a peer may open: three control streams of HTTP/3, and those that
 * peers open to check that unknown types are ignored.
 */
const MAX_UNI = 8
/**
 * Initial window of a stream, in bytes: as much as an unknown peer can make this side store for
 * each stream.
 */
const STREAM_WINDOW = 128 * 1024
/** Largest window of a stream, in bytes. The window of a link that is read fast grows to it. */
export const MAX_STREAM_WINDOW = 2 * 1024 * 1024
/** Window of all streams of a connection together. `QuicheEngine` says why it is no narrower. */
const CONNECTION_WINDOW = 2 ** 60
/** Datagrams that quiche queues in each direction. */
const MAX_DATAGRAMS = 512
/**
 * Most connection ids of the peer: one for each path that a connection may have, and some extra.
 */
const ACTIVE_ID_LIMIT = SLOTS + 4
const SLOT = 0

/** A certificate chain and its key, as PEM. `cert` begins with the leaf. */
export interface Certificate {
  readonly cert: string
  /** Private key of the leaf, as PEM. */
  readonly key: string
}

/** Makes the configuration that all connections use until the certificate changes. */
export const serverConfig = ({ cert, key }: Certificate): Config =>
  configured(
    native().quiche.Config.withBoringSslCtx(false, false, null, [Buffer.from(key)], [Buffer.from(cert)], null)
  )

/**
 * Makes the configuration of a client. `authorities` are the PEM certificates of the authorities
 * that it trusts. `null` if the caller checks the server's certificate before it sends anything.
 */
export const clientConfig = (authorities: string | null): Config =>
  configured(
    native().quiche.Config.withBoringSslCtx(
      true,
      authorities === null,
      authorities === null ? null : Buffer.from(authorities),
      null,
      null,
      null
    )
  )

const configured = (config: Config): Config => {
  config.setApplicationProtos([ALPN])
  config.setMaxIdleTimeout(IDLE_TIMEOUT_MS)
  config.setMaxRecvUdpPayloadSize(65_527)
  config.setMaxSendUdpPayloadSize(MAX_PACKET)
  config.setInitialMaxData(CONNECTION_WINDOW)
  config.setMaxConnectionWindow(CONNECTION_WINDOW)
  config.setInitialMaxStreamDataBidiLocal(STREAM_WINDOW)
  config.setInitialMaxStreamDataBidiRemote(STREAM_WINDOW)
  config.setInitialMaxStreamDataUni(STREAM_WINDOW)
  config.setMaxStreamWindow(MAX_STREAM_WINDOW)
  config.setInitialMaxStreamsBidi(MAX_BIDI)
  config.setInitialMaxStreamsUni(MAX_UNI)
  config.setActiveConnectionIdLimit(ACTIVE_ID_LIMIT)
  config.setCcAlgorithm(native().CongestionControlAlgorithm.CUBIC)
  config.enablePacing(true) // see `QuicheEngine`
  config.enableDgram(true, MAX_DATAGRAMS, MAX_DATAGRAMS)
  return config
}

/**
 * Accepts a connection. From then on the client addresses it by `id`. `originalId` is the id in the
 * client's first packet if the client was sent a Retry, and `null` otherwise.
 */
export const accept = (
  config: Config,
  { id, ids, originalId }: {
    readonly id: Uint8Array
    readonly originalId: Uint8Array | null
    readonly ids: ConnectionIds
  }
): QuicheConnection => {
  const { from, to } = ARRIVALS.connector[SLOT]!
  return new QuicheConnection({
    role: "connector",
    connection: native().quiche.Connection.accept(id, originalId, to, from, config),
    slot: SLOT,
    ids
  })
}

/**
 * Starts a connection. `serverName` is sent to the server, whose certificate must be for that name.
 * It is `null` for an IP literal; the caller then compares the certificate itself.
 */
export const connect = (config: Config, serverName: string | null): QuicheConnection => {
  const { from, to } = ARRIVALS.client[SLOT]!
  return new QuicheConnection({
    role: "client",
    connection: native().quiche.Connection.connect(serverName, randomBytes(ID_BYTES), to, from, config),
    slot: SLOT
  })
}
