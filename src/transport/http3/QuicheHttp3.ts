/** QUIC connections for HTTP/3: certificates of the web's kind, windows for one stream, and a peer that may be anybody. */
import native, { type Config } from "@infisical/quic/dist/native/index.js"
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { SLOTS } from "../quic/QuicEngine.ts"
import { ARRIVALS, type ConnectionIds, ID_BYTES, QuicheConnection } from "../quic/QuicheConnection.ts"

const ALPN = "h3"
/** Nothing for so long, keepalives included, and the peer is gone. */
export const IDLE_TIMEOUT_MS = 45_000
/** 1,280 bytes on the wire over IPv4, which any network carries. */
export const MAX_PACKET = 1252
/** What one link needs and a little for what HTTP/3 adds: three control streams, and those that peers open to keep others honest. */
const MAX_BIDI = 4
const MAX_UNI = 8
/** A stranger may make this side hold so much for each stream... */
const STREAM_WINDOW = 128 * 1024
/** ...and a link that is read fast comes to this. */
const MAX_STREAM_WINDOW = 2 * 1024 * 1024
/** All of a connection's streams: see `QuicheEngine` on why it is no narrower. */
const CONNECTION_WINDOW = 2 ** 60
const MAX_DATAGRAMS = 512
/** One for each path that a connection may have, and some to spare. */
const ACTIVE_ID_LIMIT = SLOTS + 4
const SLOT = 0

/** PEM: a chain, the leaf first, and its key. */
export interface Certificate {
  readonly cert: string
  readonly key: string
}

/** One for all connections until the certificate changes. */
export const serverConfig = ({ cert, key }: Certificate): Config =>
  configured(
    native.quiche.Config.withBoringSslCtx(false, false, null, [Buffer.from(key)], [Buffer.from(cert)], null)
  )

/** PEM of the authorities that may vouch for the server; null: the caller looks at the certificate before it says anything. */
export const clientConfig = (authorities: string | null): Config =>
  configured(
    native.quiche.Config.withBoringSslCtx(
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
  config.setCcAlgorithm(native.CongestionControlAlgorithm.CUBIC)
  config.enablePacing(true) // see `QuicheEngine`
  config.enableDgram(true, MAX_DATAGRAMS, MAX_DATAGRAMS)
  return config
}

/** `id`: by which the client knows this connection from now on. `originalId`: what it began with, where it was sent a Retry. */
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
    connection: native.quiche.Connection.accept(id, originalId, to, from, config),
    slot: SLOT,
    ids
  })
}

/** `serverName`: what the certificate must be for, and is asked for; null: an IP literal, which the caller compares. */
export const connect = (config: Config, serverName: string | null): QuicheConnection => {
  const { from, to } = ARRIVALS.client[SLOT]!
  return new QuicheConnection({
    role: "client",
    connection: native.quiche.Connection.connect(serverName, randomBytes(ID_BYTES), to, from, config),
    slot: SLOT
  })
}
