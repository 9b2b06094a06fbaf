/** Connector: from a resource's address to a connected TCP socket. Only addresses that were checked are dialled. */
import { Buffer } from "node:buffer"
import dns from "node:dns"
import net from "node:net"
import { type Verdict, type VerdictCode } from "../../protocol/FlowWire.ts"
import { resetSocket } from "./FlowPump.ts"
import { connect, type Reader } from "./TcpReader.ts"

/** For the whole dial, all addresses together, the name's resolution included. */
export const DIAL_TIMEOUT_MS = 10_000
/** RFC 8305, section 5: how long one address is tried alone before the next one is tried beside it. */
const STAGGER_MS = 250
/** Of a name with more addresses than this the first ones are tried. */
const MAX_ADDRESSES = 16
/** A TCP peer that vanished is noticed after about this long. */
const KEEPALIVE_MS = 60_000

export interface Address {
  readonly address: string
  readonly family: number
}
export type Lookup = (host: string) => Promise<ReadonlyArray<Address>>

export interface Target {
  /** A name or a literal address. */
  readonly host: string
  readonly port: number
  /** Whether the resource may be at a loopback address of the connector's host. */
  readonly allowLoopback: boolean
  readonly lookup?: Lookup
  readonly timeoutMs?: number
}

export type Result =
  | { readonly _tag: "Connected"; readonly reader: Reader; readonly address: string }
  | { readonly _tag: "Failed" } & Verdict

const systemLookup: Lookup = (host) => dns.promises.lookup(host, { all: true, verbatim: true })

/** `done` is called once. The returned function gives up; then `done` is not called any more. */
export const dial = (options: Target, done: (result: Result) => void): () => void => {
  const attempt = new Attempt(options, done)
  attempt.begin()
  return () => attempt.cancel()
}

class Attempt {
  readonly #options: Target
  readonly #done: (result: Result) => void
  readonly #sockets = new Set<Reader>()
  readonly #deadline: NodeJS.Timeout
  #stagger: NodeJS.Timeout | null = null
  #addresses: ReadonlyArray<Address> = []
  #next = 0
  /** The first failure counts: it is that of the address which the name's owner put first. */
  #failure: Verdict | null = null
  #over = false

  constructor(options: Target, done: (result: Result) => void) {
    this.#options = options
    this.#done = done
    const late: Verdict = { code: "timed_out", reason: "the resource did not answer" }
    this.#deadline = setTimeout(() => this.#fail(this.#failure ?? late), options.timeoutMs ?? DIAL_TIMEOUT_MS)
  }

  begin(): void {
    const { host } = this.#options
    const family = net.isIP(host)
    if (family !== 0) return this.#resolved([{ address: host, family }])
    const lookup = this.#options.lookup ?? systemLookup
    lookup(host).then((found) => this.#resolved(found), (error: unknown) => this.#fail(verdictOf(error)))
  }

  cancel(): void {
    this.#finish()
  }

  #resolved(found: ReadonlyArray<Address>): void {
    if (this.#over) return
    const { allowLoopback, host } = this.#options
    if (found.length === 0) return this.#fail({ code: "name_not_found", reason: `${host} has no address` })
    this.#addresses = found.filter(({ address }) => isAllowed(address, allowLoopback)).slice(0, MAX_ADDRESSES)
    if (this.#addresses.length === 0) return this.#fail({ code: "denied", reason: whyDenied(host, found) })
    this.#tryNext()
  }

  /** The next address, beside those that have not failed yet. */
  #tryNext(): void {
    if (this.#stagger !== null) clearTimeout(this.#stagger)
    this.#stagger = null
    const target = this.#addresses[this.#next]
    if (this.#over || target === undefined) return
    this.#next += 1
    const reader = connect(target.address, this.#options.port, target.family === 6 ? 6 : 4)
    this.#sockets.add(reader)
    const onError = (error: unknown) => {
      this.#sockets.delete(reader)
      this.#failure ??= verdictOf(error)
      if (this.#next < this.#addresses.length) this.#tryNext()
      else if (this.#sockets.size === 0) this.#fail(this.#failure)
    }
    reader.socket.once("error", onError)
    reader.socket.once("connect", () => {
      reader.socket.off("error", onError)
      reader.socket.on("error", () => {}) // until the pump listens; 'close' tells it
      reader.socket.setKeepAlive(true, KEEPALIVE_MS)
      this.#sockets.delete(reader)
      if (this.#over) return resetSocket(reader.socket)
      this.#finish()
      this.#done({ _tag: "Connected", reader, address: target.address })
    })
    if (this.#next < this.#addresses.length) this.#stagger = setTimeout(() => this.#tryNext(), STAGGER_MS)
  }

  #fail(verdict: Verdict): void {
    if (this.#over) return
    this.#finish()
    this.#done({ _tag: "Failed", ...verdict })
  }

  #finish(): void {
    this.#over = true
    clearTimeout(this.#deadline)
    if (this.#stagger !== null) clearTimeout(this.#stagger)
    for (const { socket } of this.#sockets) socket.destroy()
    this.#sockets.clear()
  }
}

const VERDICT_OF: Readonly<Record<string, VerdictCode>> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "refused",
  EHOSTUNREACH: "unreachable",
  ENETUNREACH: "unreachable",
  EHOSTDOWN: "unreachable",
  EADDRNOTAVAIL: "unreachable",
  EACCES: "unreachable",
  EPERM: "unreachable",
  ETIMEDOUT: "timed_out",
  ENOTFOUND: "name_not_found",
  ENODATA: "name_not_found",
  EAI_AGAIN: "timed_out"
}

/** None of these addresses may be dialled. */
const whyDenied = (host: string, found: ReadonlyArray<Address>): string => {
  const own = found.find(({ address }) => kindOf(address) === "loopback")
  if (own !== undefined) {
    return `${host} is ${own.address}, a loopback address of the connector's host; if that is meant, set allowLoopback: true at this resource`
  }
  return `${host} is ${found[0]?.address}, and no resource may be at a link-local, multicast or metadata address`
}

const SAYS: Partial<Record<VerdictCode, string>> = {
  refused: "the resource's host refused the connection",
  unreachable: "the connector's host has no way to the resource",
  timed_out: "the resource did not answer"
}

/** What a failed lookup or connect means to the application. */
export const verdictOf = (error: unknown): Verdict => {
  const errno = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : ""
  const code = VERDICT_OF[errno] ?? "internal"
  return { code, reason: errno === "" ? "the dial failed" : `${SAYS[code] ?? "the dial failed"} (${errno})` }
}

/** The connector's own host. A resource reaches it only with `allowLoopback`. */
const loopback = new net.BlockList()
loopback.addSubnet("127.0.0.0", 8, "ipv4")
loopback.addAddress("::1", "ipv6")

/** Never reached through a connector: addresses without a host, its links, and clouds' metadata services. */
const forbidden = new net.BlockList()
forbidden.addSubnet("0.0.0.0", 8, "ipv4") // "this host"
forbidden.addSubnet("169.254.0.0", 16, "ipv4") // link-local, and the metadata service of most clouds
forbidden.addAddress("100.100.100.200", "ipv4") // metadata, Alibaba Cloud
forbidden.addAddress("192.0.0.192", "ipv4") // metadata, Oracle Cloud
forbidden.addAddress("168.63.129.16", "ipv4") // platform services, Azure
forbidden.addSubnet("224.0.0.0", 4, "ipv4")
forbidden.addAddress("255.255.255.255", "ipv4")
forbidden.addAddress("::", "ipv6")
forbidden.addSubnet("fe80::", 10, "ipv6")
forbidden.addAddress("fd00:ec2::254", "ipv6") // metadata, AWS
forbidden.addAddress("fd20:ce::254", "ipv6") // metadata, Google Cloud
forbidden.addSubnet("ff00::", 8, "ipv6")
/** IPv6 forms that carry an IPv4 address in their last four bytes. */
const MAPPED = new net.BlockList()
MAPPED.addSubnet("::", 96, "ipv6") // compatible, RFC 4291, section 2.5.5.1
MAPPED.addSubnet("64:ff9b::", 96, "ipv6") // NAT64, RFC 6052
MAPPED.addSubnet("64:ff9b:1::", 48, "ipv6") // NAT64, RFC 8215

export type Kind = "ordinary" | "loopback" | "forbidden"

/** Where a literal address leads. Text that is no address is `forbidden`. */
export const kindOf = (address: string): Kind => {
  const plain = address.split("%")[0] ?? ""
  const family = net.isIP(plain)
  if (family === 0) return "forbidden"
  if (family === 4) return kindOfIpv4(plain)
  if (loopback.check(plain, "ipv6")) return "loopback"
  if (forbidden.check(plain, "ipv6")) return "forbidden"
  const bytes = ipv6Bytes(plain)
  // The kernel dials an IPv4-mapped address as the IPv4 address itself (RFC 4291, section 2.5.5.2).
  if (isMapped(bytes)) return kindOfIpv4(bytes.subarray(12).join("."))
  const inner = embeddedIpv4(plain, bytes)
  return inner === null || kindOfIpv4(inner) === "ordinary" ? "ordinary" : "forbidden"
}

/** Whether a literal address may be dialled. `allowLoopback` permits loopback addresses and nothing else beside the ordinary. */
export const isAllowed = (address: string, allowLoopback: boolean): boolean => {
  const kind = kindOf(address)
  return kind === "ordinary" || (allowLoopback && kind === "loopback")
}

const kindOfIpv4 = (address: string): Kind => {
  if (loopback.check(address, "ipv4")) return "loopback"
  return forbidden.check(address, "ipv4") ? "forbidden" : "ordinary"
}

const isMapped = (bytes: Buffer): boolean =>
  bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 255 && bytes[11] === 255

/** The IPv4 address to which a gateway on the way would translate. `null` if there is none inside. */
const embeddedIpv4 = (address: string, bytes: Buffer): string | null => {
  if (MAPPED.check(address, "ipv6")) return bytes.subarray(12).join(".")
  return bytes[0] === 0x20 && bytes[1] === 0x02 ? bytes.subarray(2, 6).join(".") : null // 6to4, RFC 3056
}

/** A valid IPv6 literal without a zone, as 16 bytes. */
const ipv6Bytes = (address: string): Buffer => {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address)
  let text = address
  if (dotted !== null) {
    const [, front, a, b, c, d] = dotted
    text = `${front}${(Number(a) << 8 | Number(b)).toString(16)}:${(Number(c) << 8 | Number(d)).toString(16)}`
  }
  const [left = "", right] = text.split("::")
  const groups = (side: string) => side === "" ? [] : side.split(":").map((group) => Number.parseInt(group, 16))
  const before = groups(left)
  const after = right === undefined ? [] : groups(right)
  const middle = right === undefined ? [] : Array.from({ length: 8 - before.length - after.length }, () => 0)
  const bytes = Buffer.alloc(16)
  for (const [at, group] of [...before, ...middle, ...after].entries()) bytes.writeUInt16BE(group, at * 2)
  return bytes
}
