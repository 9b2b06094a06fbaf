/**
 * The few calls of the C library that node:dgram lacks, on Linux, through koffi. Each thread has
 * one instance. Reading, events and closing stay with node:dgram, which adopts the descriptor.
 */
import { createRequire } from "node:module"

export const AF_INET = 2
export const AF_INET6 = 10
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const MSG_DONTWAIT = 0x40

/** Socket option as `[level, name]`: the kernel cuts a send into datagrams of this size. */
export const UDP_SEGMENT = [17, 103] as const
/** Socket option: lets the kernel join received datagrams. */
export const UDP_GRO = [17, 104] as const
/**
 * Socket option: size of the send buffer. It may exceed the system's limit (needs CAP_NET_ADMIN).
 */
export const SO_SNDBUFFORCE = [1, 32] as const
/**
 * Socket option: size of the receive buffer. It may exceed the system's limit (needs
 * CAP_NET_ADMIN).
 */
export const SO_RCVBUFFORCE = [1, 33] as const
/** Socket option: an IPv6 socket receives no IPv4. */
export const IPV6_V6ONLY = [41, 26] as const
/** Socket option: how IPv4 treats packets larger than the path's MTU. */
export const IP_MTU_DISCOVER = [0, 10] as const
/** Socket option: how IPv6 treats packets larger than the path's MTU. */
export const IPV6_MTU_DISCOVER = [41, 23] as const
/**
 * Value of `IP_MTU_DISCOVER`. It sets "don't fragment" and ignores ICMP messages about the path's
 * MTU, which can be forged (RFC 9000, section 14.2.1).
 */
export const PMTUDISC_PROBE = 3

/** The C library's calls that sockets need. */
export interface Libc {
  /** Opens a non-blocking UDP socket. Returns its descriptor, or -1. */
  readonly socket: (family: number) => number
  /** Binds a socket. Returns 0 or the errno. */
  readonly bind: (fd: number, sockaddr: Uint8Array) => number
  /**
   * Connects a socket. It then receives only from this address, and reports if no process listens
   * there. Returns 0 or the errno.
   */
  readonly connect: (fd: number, sockaddr: Uint8Array) => number
  readonly close: (fd: number) => void
  /** Sets an integer option. Returns 0 or the errno. */
  readonly setOption: (fd: number, option: readonly [level: number, name: number], value: number) => number
  /**
   * Sends one datagram, the first `length` bytes of `bytes`, and does not keep `bytes`. Returns 0
   * or the errno.
   */
  readonly sendTo: (fd: number, bytes: Uint8Array, length: number, sockaddr: Uint8Array) => number
  readonly errno: () => number
  /**
   * Returns freed memory, which glibc would keep, to the system. Does nothing with another C
   * library.
   */
  readonly trim: () => void
}

/** Result if the C library cannot be used. */
export type Unavailable = { readonly unavailable: string }

type Func = (...args: ReadonlyArray<unknown>) => number
type Koffi = {
  readonly load: (path: string | null) => { readonly func: (prototype: string) => Func }
  readonly errno: () => number
}

let loaded: Libc | Unavailable | undefined

/** Returns the C library's calls. It loads them at the first call in each thread. */
export const load = (): Libc | Unavailable => loaded ??= tryLoad()

const tryLoad = (): Libc | Unavailable => {
  if (process.platform !== "linux") return { unavailable: `${process.platform} has no UDP segmentation offload` }
  try {
    // koffi is native. It is required only when first needed, so that a machine without its binary
    // can run everything else.
    return wrap(createRequire(import.meta.url)("koffi") as Koffi)
  } catch (cause) {
    return { unavailable: `koffi did not load: ${cause instanceof Error ? cause.message : String(cause)}` }
  }
}

const wrap = (koffi: Koffi): Libc => {
  const lib = koffi.load(null)
  const socket = lib.func("int socket(int, int, int)")
  const bind = lib.func("int bind(int, const void *, uint32_t)")
  const connect = lib.func("int connect(int, const void *, uint32_t)")
  const close = lib.func("int close(int)")
  const setsockopt = lib.func("int setsockopt(int, int, int, const void *, uint32_t)")
  const sendto = lib.func("intptr_t sendto(int, const void *, uintptr_t, int, const void *, uint32_t)")
  const trim = glibcTrim(lib)
  const errno = koffi.errno
  const int = new Int32Array(1)
  return {
    errno,
    trim,
    socket: (family) => socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
    bind: (fd, sockaddr) => bind(fd, sockaddr, sockaddr.length) === 0 ? 0 : errno(),
    connect: (fd, sockaddr) => connect(fd, sockaddr, sockaddr.length) === 0 ? 0 : errno(),
    close: (fd) => void close(fd),
    setOption: (fd, option, value) => {
      int[0] = value
      return setsockopt(fd, option[0], option[1], int, 4) === 0 ? 0 : errno()
    },
    sendTo: (fd, bytes, length, sockaddr) =>
      sendto(fd, bytes, length, MSG_DONTWAIT, sockaddr, sockaddr.length) < 0 ? errno() : 0
  }
}

const glibcTrim = (lib: ReturnType<Koffi["load"]>): () => void => {
  try {
    const trim = lib.func("int malloc_trim(uintptr_t)")
    return () => void trim(0)
  } catch {
    return () => undefined // another C library, which has no such call
  }
}
