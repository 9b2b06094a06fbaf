/** The QUIC engine on Cloudflare's quiche, through the prebuilt native binding. */
import type { Connection } from "@infisical/quic/dist/native/index.js"
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { native } from "./Binding.ts"
import { ALPN, type EngineOptions, MAX_STREAM_WINDOW, type QuicEngine, SLOTS, STREAM_WINDOW } from "./QuicEngine.ts"
import { ARRIVALS, ID_BYTES, QuicheConnection } from "./QuicheConnection.ts"

/**
 * Idle timeout of QUIC. It outlasts a closed laptop lid or a lift. The caller sends keepalives and
 * detects a dead path much earlier.
 */
const IDLE_TIMEOUT_MS = 600_000
/**
 * Flow-control window of the whole connection, large enough never to matter.
 *
 * quiche never returns the connection-level credit of bytes that a reset or stopped stream left
 * unread, so resets would use up any finite window. A finite window would also let a few stalled
 * flows block all others. Memory is bounded by the stream windows times the number of flows that
 * the owner admits.
 */
const CONNECTION_WINDOW = 2 ** 60
/**
 * Streams that QUIC lets a client have open; the connector opens none. The limit is far above what
 * a session admits, because quiche never returns the credit of a stream whose end was lost (see
 * EndNotice).
 */
const MAX_STREAMS = 65_536
/** Connection ids in use at once: one per slot, and spare ones while retired ids are replaced. */
const ACTIVE_ID_LIMIT = SLOTS + 4
/** Datagrams that may wait in each direction. */
const MAX_DATAGRAMS = 1024

const makeConfig = (options: EngineOptions) => {
  // The peer must present a certificate, but no authority vouches for it. The owner compares it
  // with the pinned key.
  const config = native().quiche.Config.withBoringSslCtx(
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
  // BBR of this version restarts very slowly after a migration.
  config.setCcAlgorithm(native().CongestionControlAlgorithm.CUBIC)
  // The session bounds bursts itself and ignores the pacer's send times. But without pacing, quiche
  // 0.18 takes the time at which its pacer last restarted as the packet's send time. On a window
  // below ten of the largest packets, the measured round-trip time then grows by itself, to
  // minutes.
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
    const connection = native().quiche.Connection.accept(randomBytes(ID_BYTES), null, to, from, config)
    return new QuicheConnection({ role, connection, slot, onlyFrom: clientId })
  }
  const connection = native().quiche.Connection.connect(null, clientId ?? randomBytes(ID_BYTES), to, from, config)
  const resumes = savedSession !== null && isTaken(connection, savedSession)
  return new QuicheConnection({ role, connection, slot, resumes })
}

/**
 * Whether quiche accepts the saved session. `false` if it is not from this build of TLS; the
 * handshake is then a full one.
 */
const isTaken = (connection: Connection, session: Uint8Array): boolean => {
  try {
    connection.setSession(session)
    return true
  } catch {
    return false
  }
}

/** The engine on quiche, for sessions between nodes. */
export const engine: QuicEngine = { open }
