/**
 * A UDP socket that moves trains of datagrams. On Linux the kernel cuts the bytes of one send into
 * datagrams (UDP_SEGMENT) and joins received ones (UDP_GRO). Elsewhere, or if
 * SALLYPORT_UDP_OFFLOAD=0 is set, the same methods send one datagram at a time.
 *
 * Sends report no result, because a lost datagram is ordinary; sends that the kernel refused are
 * counted by error code. With offload a buffer is free again when the call returns. Without it
 * node:dgram may hold the buffer until the socket's buffer has room.
 */
import { Effect, Schema, type Scope } from "effect"
import { createSocket, type RemoteInfo, type Socket } from "node:dgram"
import { constants } from "node:os"
import { renderHostPort, type SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Libc from "./Libc.ts"
import * as Sockaddr from "./Sockaddr.ts"

/**
 * Most datagrams in one send. Older kernels accept up to 64 with UDP_SEGMENT; 44 of the usual 1,448
 * bytes fit into one call.
 */
export const MAX_TRAIN_PACKETS = 44
/** Most bytes in one send. The limit of UDP over IPv4 is 65,507. */
export const MAX_TRAIN_BYTES = 65_000
/**
 * Size of the socket's buffers, in bytes. They hold what arrives in 32 ms at 1 Gbit/s while the
 * thread is busy.
 */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
/**
 * Trains refused in a row after which the socket sends single datagrams, because its interface
 * cannot segment.
 */
const REFUSALS_UNTIL_SINGLES = 16

const { EADDRINUSE, EINVAL, EIO, EMSGSIZE } = constants.errno
const NAMES = new Map(Object.entries(constants.errno).map(([name, code]) => [code, name]))
const nameOf = (errno: number): string => NAMES.get(errno) ?? `errno ${errno}`

/** Error when the socket could not be opened. `message` says what to do. */
export class UdpOpenError extends Schema.TaggedError<UdpOpenError>()("UdpOpenError", {
  host: Schema.String,
  port: Schema.Int,
  /** The system's name of the error, such as EADDRINUSE. */
  code: Schema.String,
  message: Schema.String
}) {}

/** Options of {@link open}. */
export interface Options {
  /** A literal address of `family`; `0.0.0.0` or `::` for all addresses of this machine. */
  readonly host: string
  /** Local port; 0 picks a free one. */
  readonly port: number
  /** IP version. An IPv6 socket never takes IPv4, so that both families can share a port number. */
  readonly family: 4 | 6
  /** Segment size that most trains will have, in bytes. */
  readonly segment: number
  /**
   * Called with one datagram, or several of equal size that the kernel joined (the last may be
   * shorter). The receiver owns `bytes`.
   */
  readonly onMessage: (bytes: Buffer, from: RemoteInfo) => void
  /** Called when the socket itself failed. Refused sends are not reported here. */
  readonly onError: (cause: Error) => void
  /** Whether to use offload. Default: unless SALLYPORT_UDP_OFFLOAD=0 is set. */
  readonly offload?: boolean
  /**
   * The only peer of the socket. Datagrams from other addresses are not received, and `onError` is
   * called if no process listens at the peer's address.
   */
  readonly peer?: SocketAddr
  /**
   * Set to `false` if each message must be one datagram, as for protocols whose messages have no
   * length. By default the kernel may join datagrams.
   */
  readonly joined?: boolean
  /**
   * Set to `true` to have datagrams that are too large for the path dropped instead of fragmented
   * (on Linux with offload). Sockets that search their path's MTU need it.
   */
  readonly dontFragment?: boolean
}

/** Counts of what a socket has sent. */
export interface Counters {
  /** Datagrams that the kernel took, or that node:dgram took if there is no offload. */
  packets: number
  /** Bytes of those datagrams. */
  bytes: number
  /**
   * Number of system calls that sent datagrams. A train that was sent without offload counts as
   * one.
   */
  sends: number
  /**
   * Refused sends, by the system's name of the error. EAGAIN means that the socket's buffer is
   * full.
   */
  readonly errors: Record<string, number>
}

/** A send that the system forbade. */
export interface Forbidden {
  /** The system's name of the error, such as EPERM. */
  readonly code: string
  /** When the send failed, in milliseconds of `performance.now`. */
  readonly at: number
}

/** Returns the reason why this thread has no offload. `null` if it has. */
export const offloadUnavailable = (): string | null => {
  if (process.env["SALLYPORT_UDP_OFFLOAD"] === "0") return "SALLYPORT_UDP_OFFLOAD=0"
  const libc = Libc.load()
  return "unavailable" in libc ? libc.unavailable : null
}

/**
 * A UDP socket. It sends a train of datagrams in one system call if the kernel supports that
 * (UDP_SEGMENT).
 */
export class UdpPort {
  /** IP version of the socket. */
  readonly family: 4 | 6
  readonly counters: Counters = { packets: 0, bytes: 0, sends: 0, errors: {} }
  readonly #socket: Socket
  readonly #libc: Libc.Libc | null
  readonly #fd: number
  /** Whether node:dgram considers the socket connected. It then refuses a destination. */
  readonly #isConnected: boolean
  readonly #destinations: Sockaddr.Destinations
  /** The value of the kernel's UDP_SEGMENT now; 0 turns it off. */
  #segment = 0
  #segmenting: boolean
  #refusals = 0
  #closed = false
  #forbidden: Forbidden | null = null

  /** Callback for node:dgram, which does not report the kernel's refusals without one. */
  readonly #onSent = (cause: Error | null): void => {
    if (cause !== null) this.#count(codeOf(cause))
  }

  /** @see {@link open} */
  constructor(
    socket: Socket,
    family: 4 | 6,
    native: { libc: Libc.Libc; fd: number; segmenting: boolean } | null,
    isConnected = false
  ) {
    this.#isConnected = isConnected
    this.#socket = socket
    this.family = family
    this.#libc = native?.libc ?? null
    this.#fd = native?.fd ?? -1
    this.#segmenting = native?.segmenting ?? false
    this.#destinations = new Sockaddr.Destinations(family)
  }

  /** Whether one call sends a whole train. May turn `false`, and then stays so. */
  get segmenting(): boolean {
    return this.#segmenting
  }

  /** Whether the socket is closed. */
  get closed(): boolean {
    return this.#closed
  }

  /**
   * The last send that this machine's firewall forbade: the error code, and the time in ms of
   * `performance.now`. `null` if there was none.
   */
  get forbidden(): Forbidden | null {
    return this.#forbidden
  }

  /** The address and port that the socket is bound to. */
  address(): SocketAddr {
    const { address, port } = this.#socket.address()
    return { host: address, port }
  }

  /** Sends one datagram. `address` is literal. */
  send(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void {
    if (this.#closed) return
    this.counters.sends++
    this.#one(bytes, offset, length, port, address)
  }

  /**
   * Sends adjacent datagrams of `segment` bytes, starting at `offset`; the last may be shorter. A
   * train that is too long for one call is split over several.
   */
  sendTrain(bytes: Uint8Array, length: number, segment: number, port: number, address: string, offset = 0): void {
    if (this.#closed || segment <= 0) return
    if (length <= segment) return this.send(bytes, offset, length, port, address)
    const most = segment * Math.max(1, Math.min(MAX_TRAIN_PACKETS, Math.floor(MAX_TRAIN_BYTES / segment)))
    for (let at = 0; at < length; at += most) {
      const part = Math.min(most, length - at)
      this.counters.sends++
      if (!this.#segmenting || part <= segment || !this.#train(bytes, offset + at, part, segment, port, address)) {
        this.#singles(bytes, offset + at, part, segment, port, address)
      }
    }
  }

  /** Closes the socket and its descriptor. Later sends do nothing. */
  close(): void {
    if (this.#closed) return
    // This comes first: right after the close the descriptor's number may belong to another file.
    this.#closed = true
    this.#socket.close()
  }

  /** Lets the process end while the socket is open. */
  unref(): void {
    this.#socket.unref()
  }

  #singles(bytes: Uint8Array, offset: number, length: number, segment: number, port: number, address: string): void {
    for (let at = 0; at < length; at += segment) {
      this.#one(bytes, offset + at, Math.min(segment, length - at), port, address)
    }
  }

  /**
   * Sends a train in one call. Returns `false` if nothing was sent and single datagrams may still
   * get through.
   */
  #train(bytes: Uint8Array, offset: number, length: number, segment: number, port: number, address: string): boolean {
    const to = this.#destinations.get(address, port)
    if (to === null) return this.#count("EINVAL")
    if (!this.#setSegment(segment)) return false
    const errno = this.#write(bytes, offset, length, to)
    if (errno === 0) {
      this.#refusals = 0
      this.counters.packets += Math.ceil(length / segment)
      this.counters.bytes += length
      return true
    }
    // EIO: the device has no checksum offload, or IPsec is in use. EINVAL or EMSGSIZE: a packet
    // exceeds the MTU of this path; forged ICMP can cause that, too. Other paths of the socket may
    // be fine, so this train is sent as single datagrams, and all later ones only if trains keep
    // being refused.
    if (errno === EIO || ((errno === EINVAL || errno === EMSGSIZE) && ++this.#refusals >= REFUSALS_UNTIL_SINGLES)) {
      this.#stopSegmenting()
    }
    this.#count(nameOf(errno))
    return errno !== EIO && errno !== EINVAL && errno !== EMSGSIZE
  }

  #one(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void {
    if (this.#libc === null) return this.#viaDgram(bytes, offset, length, port, address)
    const to = this.#destinations.get(address, port)
    if (to === null) return void this.#count("EINVAL")
    // A datagram longer than the segment would be cut in two.
    if (this.#segment !== 0 && length > this.#segment && !this.#setSegment(length)) return
    let errno = this.#write(bytes, offset, length, to)
    if (errno === EIO && this.#segment !== 0) {
      this.#stopSegmenting()
      errno = this.#write(bytes, offset, length, to)
    }
    if (errno !== 0) return void this.#count(nameOf(errno))
    this.counters.packets++
    this.counters.bytes += length
  }

  #write(bytes: Uint8Array, offset: number, length: number, to: Uint8Array): number {
    const from = offset === 0 ? bytes : bytes.subarray(offset, offset + length)
    return this.#libc === null ? EINVAL : this.#libc.sendTo(this.#fd, from, Math.min(length, from.length), to)
  }

  #setSegment(segment: number): boolean {
    if (segment === this.#segment || this.#libc === null) return true
    const errno = this.#libc.setOption(this.#fd, Libc.UDP_SEGMENT, segment)
    if (errno === 0) this.#segment = segment
    else this.#count(nameOf(errno))
    return errno === 0
  }

  #stopSegmenting(): void {
    this.#segmenting = false
    this.#setSegment(0)
  }

  #viaDgram(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void {
    try {
      if (this.#isConnected) this.#socket.send(bytes, offset, length, this.#onSent)
      else this.#socket.send(bytes, offset, length, port, address, this.#onSent)
      this.counters.packets++
      this.counters.bytes += length
    } catch (cause) {
      this.#count(codeOf(cause)) // a port of 0, or a name instead of an address
    }
  }

  /** Counts a refused send. Always returns `true`, for callers that have nothing left to try. */
  #count(code: string): true {
    this.counters.errors[code] = (this.counters.errors[code] ?? 0) + 1
    // EPERM: a packet filter. EACCES: a prohibiting route, or a security module.
    if (code === "EPERM" || code === "EACCES") this.#forbidden = { code, at: performance.now() }
    return true
  }
}

/** Opens a socket. It is bound when the promise resolves. Rejects with `UdpOpenError`. */
export const open = async (options: Options): Promise<UdpPort> => {
  const native = openNative(options)
  const { family } = options
  const socket = createSocket({
    type: family === 4 ? "udp4" : "udp6",
    ipv6Only: family === 6,
    // Destinations are literal. Without this, node:dgram starts a resolver request for each
    // datagram.
    lookup: (host, _options, done) => done(null, host, family)
  })
  const where = native === null
    ? { port: options.port, address: options.host, exclusive: true }
    : { fd: native.fd, exclusive: true }
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject)
      const onOpen = () => {
        socket.off("error", reject)
        resolve()
      }
      const { peer } = options
      socket.bind(where, () => native === null && peer ? socket.connect(peer.port, peer.host, onOpen) : onOpen())
    })
  } catch (cause) {
    native?.libc.close(native.fd)
    try {
      socket.close()
    } catch {
      // A socket that failed to bind may be closed already.
    }
    throw failed(options, codeOf(cause))
  }
  enlarge(socket, native)
  socket.on("message", options.onMessage)
  socket.on("error", options.onError)
  return new UdpPort(socket, family, native, native === null && options.peer !== undefined)
}

/**
 * Opens a socket that closes with the scope. The reason for missing offload is logged once in each
 * thread, at debug level.
 */
export const openScoped = (options: Options): Effect.Effect<UdpPort, UdpOpenError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({ try: () => open(options), catch: (cause) => asOpenError(options, cause) }),
    (port) => Effect.sync(() => port.close())
  ).pipe(Effect.tap((port) => port.segmenting ? Effect.void : tellOnce))

let told = false
const tellOnce = Effect.suspend(() => {
  if (told) return Effect.void
  told = true
  return Effect.logDebug("UDP sends one datagram at a time").pipe(
    Effect.annotateLogs("reason", offloadUnavailable() ?? "the kernel has no UDP_SEGMENT")
  )
})

type Native = { readonly libc: Libc.Libc; readonly fd: number; readonly segmenting: boolean }

/** Opens a descriptor through the C library. `null` if offload is not wanted or not available. */
const openNative = (options: Options): Native | null => {
  if (!(options.offload ?? process.env["SALLYPORT_UDP_OFFLOAD"] !== "0")) return null
  const libc = Libc.load()
  if ("unavailable" in libc) return null
  const sockaddr = Sockaddr.make(options.host, options.port, options.family)
  if (sockaddr === null) throw failed(options, "EINVAL")
  const fd = libc.socket(options.family === 4 ? Libc.AF_INET : Libc.AF_INET6)
  if (fd < 0) throw failed(options, nameOf(libc.errno()))
  if (options.family === 6) libc.setOption(fd, Libc.IPV6_V6ONLY, 1)
  if (options.dontFragment === true) {
    libc.setOption(fd, options.family === 4 ? Libc.IP_MTU_DISCOVER : Libc.IPV6_MTU_DISCOVER, Libc.PMTUDISC_PROBE)
  }
  const errno = libc.bind(fd, sockaddr) || connectTo(libc, fd, options)
  if (errno !== 0) {
    libc.close(fd)
    throw failed(options, nameOf(errno))
  }
  // Older kernels lack both options. The descriptor still serves, one datagram at a time.
  if (options.joined !== false) libc.setOption(fd, Libc.UDP_GRO, 1)
  const segmenting = libc.setOption(fd, Libc.UDP_SEGMENT, options.segment) === 0
  if (segmenting) libc.setOption(fd, Libc.UDP_SEGMENT, 0)
  return { libc, fd, segmenting }
}

const connectTo = (libc: Libc.Libc, fd: number, { family, peer }: Options): number => {
  if (peer === undefined) return 0
  const sockaddr = Sockaddr.make(peer.host, peer.port, family)
  return sockaddr === null ? EINVAL : libc.connect(fd, sockaddr)
}

/**
 * Enlarges the socket's buffers. The system's limit (net.core.rmem_max) applies unless the process
 * has CAP_NET_ADMIN.
 */
const enlarge = (socket: Socket, native: Native | null): void => {
  const forced = native !== null &&
    native.libc.setOption(native.fd, Libc.SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES) === 0 &&
    native.libc.setOption(native.fd, Libc.SO_SNDBUFFORCE, SOCKET_BUFFER_BYTES) === 0
  if (forced) return
  try {
    socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
    socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
  } catch {
    // The system's default size stays.
  }
}

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "unknown"

const asOpenError = (options: Options, cause: unknown): UdpOpenError =>
  cause instanceof UdpOpenError ? cause : failed(options, codeOf(cause))

const failed = ({ family, host, port }: Options, code: string): UdpOpenError => {
  const where = renderHostPort({ host, port })
  const advice = code === nameOf(EADDRINUSE)
    ? "another program has this port: stop it, or configure another port"
    : code === "EACCES"
    ? "ports below 1024 need a privilege: configure a higher port, or grant CAP_NET_BIND_SERVICE"
    : code === "EADDRNOTAVAIL" || code === "EINVAL"
    ? "this machine has no such address: configure one of its own"
    : code === "EAFNOSUPPORT"
    ? `this machine has no IPv${family}: leave it out of the configuration`
    : "check the address and port in the configuration"
  return new UdpOpenError({ host, port, code, message: `Cannot open UDP ${where} (${code}): ${advice}.` })
}
