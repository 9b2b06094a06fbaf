/**
 * A UDP socket that moves trains of datagrams. On Linux the kernel cuts what one call sends (UDP_SEGMENT) and joins what it
 * received (UDP_GRO); elsewhere, or where SALLYPORT_UDP_OFFLOAD=0, the same calls send one datagram at a time.
 *
 * Sending is fire and forget, since a lost datagram is ordinary: what the kernel refused is counted by its code. With offload
 * a buffer is free again when the call returns; without, node:dgram may hold it until the socket's buffer has room.
 */
import { Effect, Schema, type Scope } from "effect"
import { createSocket, type RemoteInfo, type Socket } from "node:dgram"
import { constants } from "node:os"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"
import * as Libc from "./Libc.ts"
import * as Sockaddr from "./Sockaddr.ts"

/** UDP_SEGMENT takes 64 on older kernels; 44 of our usual 1,448 bytes are what fits in one call. */
export const MAX_TRAIN_PACKETS = 44
/** The most that one UDP send may carry over IPv4 is 65,507 bytes. */
export const MAX_TRAIN_BYTES = 65_000
/** Holds 32 ms at 1 Gbit/s: what arrives while the thread is busy elsewhere. */
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
/** So many trains in a row refused, none accepted between: this socket's way out cannot segment. */
const REFUSALS_UNTIL_SINGLES = 16

const { EADDRINUSE, EINVAL, EIO, EMSGSIZE } = constants.errno
const NAMES = new Map(Object.entries(constants.errno).map(([name, code]) => [code, name]))
const nameOf = (errno: number): string => NAMES.get(errno) ?? `errno ${errno}`

export class UdpOpenError extends Schema.TaggedError<UdpOpenError>()("UdpOpenError", {
  host: Schema.String,
  port: Schema.Int,
  /** The system's name, such as EADDRINUSE. */
  code: Schema.String,
  message: Schema.String
}) {}

export interface Options {
  /** A literal address of `family`; "0.0.0.0" or "::" for all of this machine's. */
  readonly host: string
  /** 0: any free one. */
  readonly port: number
  /** An IPv6 socket never takes IPv4, so that both families can share a port number. */
  readonly family: 4 | 6
  /** The segment that most trains will have, bytes. */
  readonly segment: number
  /** One datagram, or several of equal size (the last may be shorter) joined by the kernel. `bytes` is the reader's to keep. */
  readonly onMessage: (bytes: Buffer, from: RemoteInfo) => void
  /** The socket itself failed; refused sends do not come here. */
  readonly onError: (cause: Error) => void
  /** Default: unless SALLYPORT_UDP_OFFLOAD=0. */
  readonly offload?: boolean
  /** The only one to talk to: of nobody else anything comes, and the system tells by `onError` when nobody listens there. */
  readonly peer?: SocketAddr
  /** False: each message is one datagram, which need not carry its own length. Default: the kernel may join them. */
  readonly joined?: boolean
  /** Datagrams too large for the way are dropped instead of cut (Linux with offload). For sockets that search their MTU. */
  readonly dontFragment?: boolean
}

export interface Counters {
  /** Datagrams and bytes that the kernel took; without offload, that were handed to node:dgram. */
  packets: number
  bytes: number
  /** Calls, or trains cut by hand. */
  sends: number
  /** Refused, by the system's name: EAGAIN is a full socket buffer. */
  readonly errors: Record<string, number>
}

/** Null while offload can be had in this thread, else why not. */
export const offloadUnavailable = (): string | null => {
  if (process.env["SALLYPORT_UDP_OFFLOAD"] === "0") return "SALLYPORT_UDP_OFFLOAD=0"
  const libc = Libc.load()
  return "unavailable" in libc ? libc.unavailable : null
}

export class UdpPort {
  readonly family: 4 | 6
  readonly counters: Counters = { packets: 0, bytes: 0, sends: 0, errors: {} }
  readonly #socket: Socket
  readonly #libc: Libc.Libc | null
  readonly #fd: number
  /** In node:dgram's eyes, which then refuses to be told where to. */
  readonly #isConnected: boolean
  readonly #destinations: Sockaddr.Destinations
  #segment = 0 // what the kernel's UDP_SEGMENT is now; 0 is off
  #segmenting: boolean
  #refusals = 0
  #closed = false

  /** Without a callback node:dgram keeps the kernel's refusals to itself. */
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

  /** Whether one call sends a whole train. May turn false for good, never true again. */
  get segmenting(): boolean {
    return this.#segmenting
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Where the socket is bound. */
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
   * Sends datagrams of `segment` bytes that lie side by side from `offset`; the last may be shorter. More than one call can
   * carry is sent by several.
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

  /** The descriptor is free when this returns. Further sends do nothing. */
  close(): void {
    if (this.#closed) return
    this.#closed = true // before the close: the descriptor's number may be somebody else's right after it
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

  /** False: nothing was sent, and one datagram at a time may get through. */
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
    // EIO: the device has no checksum offload, or IPsec is in the way. EINVAL, EMSGSIZE: a packet exceeds the MTU of this
    // one way, which others may share (and forged ICMP may cause): singles for this train, for good only if none gets through.
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

  /** Always true, for callers that have nothing more to try. */
  #count(code: string): true {
    this.counters.errors[code] = (this.counters.errors[code] ?? 0) + 1
    return true
  }
}

/** Bound when the promise resolves; rejects with `UdpOpenError`. */
export const open = async (options: Options): Promise<UdpPort> => {
  const native = openNative(options)
  const { family } = options
  const socket = createSocket({
    type: family === 4 ? "udp4" : "udp6",
    ipv6Only: family === 6,
    // Destinations are literal: without this, node:dgram starts a resolver's request for each datagram.
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
      // a socket that failed to bind may be closed already
    }
    throw failed(options, codeOf(cause))
  }
  enlarge(socket, native)
  socket.on("message", options.onMessage)
  socket.on("error", options.onError)
  return new UdpPort(socket, family, native, native === null && options.peer !== undefined)
}

/** Closes the socket with the scope. Why offload is missing is logged once for each thread, at debug. */
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

/** Null: not wanted, or not to be had here. */
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
  // Older kernels know neither option: the descriptor still serves, one datagram at a time.
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

/** Best effort: the system's limit (net.core.rmem_max) holds unless we run with CAP_NET_ADMIN. */
const enlarge = (socket: Socket, native: Native | null): void => {
  const forced = native !== null &&
    native.libc.setOption(native.fd, Libc.SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES) === 0 &&
    native.libc.setOption(native.fd, Libc.SO_SNDBUFFORCE, SOCKET_BUFFER_BYTES) === 0
  if (forced) return
  try {
    socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
    socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
  } catch {
    // the system's default size stays
  }
}

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "unknown"

const asOpenError = (options: Options, cause: unknown): UdpOpenError =>
  cause instanceof UdpOpenError ? cause : failed(options, codeOf(cause))

const failed = ({ family, host, port }: Options, code: string): UdpOpenError => {
  const where = family === 6 ? `[${host}]:${port}` : `${host}:${port}`
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
