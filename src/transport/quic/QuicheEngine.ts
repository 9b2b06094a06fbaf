/** The QUIC engine on Cloudflare's quiche, through the prebuilt native binding. */
import native, { type Connection } from "@infisical/quic/dist/native/index.js"
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { ALPN, type EngineOptions, MAX_STREAM_WINDOW, type QuicEngine, SLOTS, STREAM_WINDOW } from "./QuicEngine.ts"
import { ARRIVALS, ID_BYTES, QuicheConnection } from "./QuicheConnection.ts"

/** Outlasts a closed laptop lid or a lift; the caller sends keepalives and judges a path dead long before. */
const IDLE_TIMEOUT_MS = 600_000
/**
 * quiche never gives back the connection-level credit of bytes that a reset or stopped stream left unread, so any finite
 * window leaks away with resets; and a finite one lets a few stalled flows stop all others. So it is out of the way, and
 * memory is bounded by the stream windows times the flows that the owner admits.
 */
const CONNECTION_WINDOW = 2 ** 60
/**
 * Streams that a client may have open in QUIC's eyes; the connector opens none. Far more than a session admits, since quiche
 * never gives back the credit of a stream whose end was lost (see EndNotice).
 */
const MAX_STREAMS = 65_536
/** One for each slot and some to spare while retired ones are replaced. */
const ACTIVE_ID_LIMIT = SLOTS + 4
const MAX_DATAGRAMS = 1024

const makeConfig = (options: EngineOptions) => {
  // The peer must present a certificate, but no authority vouches for it: the owner compares it with the pinned key.
  const config = native.quiche.Config.withBoringSslCtx(
    true,
    true,
    null,
    [Buffer.from(options.privateKey)],
    [Buffer.from(options.certificate)],
    "ed25519"
  )
  config.setApplicationProtos([ALPN])
  config.setMaxIdleTimeout(IDLE_TIMEOUT_MS)
  config.setMaxRecvUdpPayloadSize(65_527)
  config.setMaxSendUdpPayloadSize(options.maxPacket)
  config.setInitialMaxData(CONNECTION_WINDOW)
  config.setMaxConnectionWindow(CONNECTION_WINDOW)
  config.setInitialMaxStreamDataBidiLocal(STREAM_WINDOW)
  config.setInitialMaxStreamDataBidiRemote(STREAM_WINDOW)
  config.setMaxStreamWindow(MAX_STREAM_WINDOW)
  config.setInitialMaxStreamsBidi(options.role === "connector" ? MAX_STREAMS : 0)
  config.setInitialMaxStreamsUni(0)
  config.setActiveConnectionIdLimit(ACTIVE_ID_LIMIT)
  config.setCcAlgorithm(native.CongestionControlAlgorithm.CUBIC) // BBR of this version restarts very slowly after a migration
  // Its send times are passed over (the session bounds bursts), but without them quiche 0.18 takes a packet for sent when its pacer
  // last began anew: on a window below ten of the largest packets the round trip then grows by itself, to minutes.
  config.enablePacing(true)
  config.enableDgram(true, MAX_DATAGRAMS, MAX_DATAGRAMS)
  const ticketKey = options.resumption?.ticketKey ?? null
  if (ticketKey !== null) config.setTicketKey(ticketKey)
  if (ticketKey !== null || options.role === "client") config.enableEarlyData()
  return config
}

const open = (options: EngineOptions): QuicheConnection => {
  const { role, slot } = options
  const { clientId, savedSession } = options.resumption ?? { clientId: null, savedSession: null }
  const arrival = ARRIVALS[role][slot]
  if (arrival === undefined) throw new RangeError(`slot ${slot} is not one of ${SLOTS}`)
  const { from, to } = arrival
  const config = makeConfig(options)
  if (role === "connector") {
    const connection = native.quiche.Connection.accept(randomBytes(ID_BYTES), null, to, from, config)
    return new QuicheConnection({ role, connection, slot, onlyFrom: clientId })
  }
  const connection = native.quiche.Connection.connect(null, clientId ?? randomBytes(ID_BYTES), to, from, config)
  const resumes = savedSession !== null && isTaken(connection, savedSession)
  return new QuicheConnection({ role, connection, slot, resumes })
}

/** False: not a session of this build of TLS, so the handshake is whole. */
const isTaken = (connection: Connection, session: Uint8Array): boolean => {
  try {
    connection.setSession(session)
    return true
  } catch {
    return false
  }
}

export const engine: QuicEngine = { open }
