/**
 * Connects from the connector to a resource's address over TCP. It dials only addresses that it has
 * checked.
 */
import { Buffer } from "node:buffer"
import net from "node:net"
import { type Verdict, type VerdictCode } from "../../protocol/flow/FlowWire.ts"
import type { Address } from "../../protocol/flow/ResolverFiles.ts"
import * as Limits from "../../services/telemetry/Limits.ts"
import { type Listener, Names } from "../dns/Names.ts"
import { resetSocket } from "./FlowPump.ts"
import { connect, type Reader } from "./TcpReader.ts"

/**
 * Longest time for a whole dial, in milliseconds: the name's lookup and the attempts to connect to
 * its addresses.
 */
export const DIAL_TIMEOUT_MS = 10_000
/**
 * Time in milliseconds for which one address is tried alone before the next one is tried beside it
 * (Happy Eyeballs, RFC 8305, section 5).
 */
const STAGGER_MS = 250
/** Most addresses of one name that are tried. */
const MAX_ADDRESSES = 16
/**
 * Idle time before TCP keepalives, in milliseconds: a peer that has vanished is noticed after about
 * this long.
 */
const KEEPALIVE_MS = 60_000

/** Looks up a name, as {@link Names.lookup} does. The returned function cancels. */
export type Lookup = (host: string, client: string, listener: Listener) => () => void

/** The target of a dial. `timeoutMs` defaults to {@link DIAL_TIMEOUT_MS}. */
export interface Target {
  /** A name or a literal address. */
  readonly host: string
  /** TCP port to connect to. */
  readonly port: number
  /** Whether the resource may be at a loopback address of the connector's host. */
  readonly allowLoopback: boolean
  /** The client that asks. Lookups are limited for each client. */
  readonly client: string
  readonly lookup?: Lookup
  readonly timeoutMs?: number
  /** Called when the first socket is opened, and again for each further attempt. */
  readonly onSocket?: () => void
}

/** Result of a dial. The socket of `reader` is connected and paused. */
export type Result =
  | { readonly _tag: "Connected"; readonly reader: Reader; readonly address: string }
  | { readonly _tag: "Failed" } & Verdict

/** Shared by all dials of the thread, so that they share lookups and answers. */
const names = new Names()

/**
 * Dials a target. `done` is called once. The returned function cancels the dial; then `done` is not
 * called.
 */
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
  #leaveLookup: (() => void) | null = null
  /** Whether the lookup has delivered all its addresses. */
  #isWhole = false
  readonly #found: Array<Address> = []
  /** Allowed addresses that were not tried yet. */
  readonly #untried: Record<4 | 6, Array<string>> = { 4: [], 6: [] }
  #lastFamily: 4 | 6 = 4
  #tried = 0
  /**
   * The most informative failure of any address. On a host without IPv6, for example, "unreachable"
   * for an IPv6 address says nothing about the other addresses.
   */
  #failure: Verdict | null = null
  #over = false

  constructor(options: Target, done: (result: Result) => void) {
    this.#options = options
    this.#done = done
    this.#deadline = setTimeout(() => this.#fail(this.#failure ?? this.#late()), options.timeoutMs ?? DIAL_TIMEOUT_MS)
  }

  begin(): void {
    const { client, host, lookup = (...asked) => names.lookup(...asked) } = this.#options
    const family = net.isIP(host)
    if (family !== 0) return this.#onFound([{ address: host, family: family === 6 ? 6 : 4 }], true)
    const leave = lookup(host, client, {
      onFound: (addresses, isLast) => this.#onFound(addresses, isLast),
      onFailed: (verdict) => this.#fail(verdict)
    })
    if (this.#over) leave()
    else this.#leaveLookup = leave
  }

  cancel(): void {
    this.#finish()
  }

  #late(): Verdict {
    const { host } = this.#options
    const reason = this.#tried === 0 ? `the connector could not look up ${host} in time` : "the resource did not answer"
    return { code: "timed_out", reason }
  }

  #onFound(addresses: ReadonlyArray<Address>, isLast: boolean): void {
    if (this.#over) return
    this.#isWhole = isLast
    const news = addresses.filter(({ address }) => !this.#found.some((known) => known.address === address))
    this.#found.push(...news)
    for (const { address, family } of news) {
      if (isAllowed(address, this.#options.allowLoopback)) this.#untried[family].push(address)
    }
    if (this.#stagger === null) this.#tryNext()
  }

  /** Takes the next address. The families take turns, IPv6 first (RFC 8305, section 4). */
  #take(): Address | null {
    const family = this.#lastFamily === 4 ? 6 : 4
    for (const each of family === 6 ? ([6, 4] as const) : ([4, 6] as const)) {
      const address = this.#untried[each].shift()
      if (address === undefined) continue
      this.#lastFamily = each
      return { address, family: each }
    }
    return null
  }

  get #hasMore(): boolean {
    return this.#tried < MAX_ADDRESSES && this.#untried[4].length + this.#untried[6].length > 0
  }

  /** Fails the dial if nothing is left to try or to wait for. */
  #onExhausted(): void {
    if (!this.#isWhole || this.#sockets.size > 0) return
    const { host } = this.#options
    if (this.#tried > 0) return this.#fail(this.#failure ?? this.#late())
    if (this.#found.length > 0) return this.#fail({ code: "denied", reason: whyDenied(host, this.#found) })
    this.#fail({ code: "name_not_found", reason: `${host} has no address` })
  }

  /** Tries the next address, beside those that have not failed yet. */
  #tryNext(): void {
    if (this.#stagger !== null) clearTimeout(this.#stagger)
    this.#stagger = null
    if (this.#over) return
    const target = this.#hasMore ? this.#take() : null
    if (target === null) return this.#onExhausted()
    this.#tried += 1
    const reader = connect(target.address, this.#options.port, target.family)
    this.#sockets.add(reader)
    this.#options.onSocket?.()
    const onError = (error: unknown) => {
      this.#sockets.delete(reader)
      if (target.family !== 6 && codeOf(error) === "EADDRNOTAVAIL") Limits.met("local_ports")
      const failure = verdictOf(error)
      if (this.#failure === null || TELLING.indexOf(failure.code) > TELLING.indexOf(this.#failure.code)) {
        this.#failure = failure
      }
      this.#tryNext()
    }
    reader.socket.once("error", onError)
    reader.socket.once("connect", () => {
      reader.socket.off("error", onError)
      // Errors are ignored until the pump listens; the `close` event reports them.
      reader.socket.on("error", () => {})
      reader.socket.setKeepAlive(true, KEEPALIVE_MS)
      this.#sockets.delete(reader)
      if (this.#over) return resetSocket(reader.socket)
      this.#finish()
      this.#done({ _tag: "Connected", reader, address: target.address })
    })
    // The timer starts even if no other address is known: one may arrive meanwhile and must not be
    // tried at once.
    if (this.#hasMore || !this.#isWhole) this.#stagger = setTimeout(() => this.#tryNext(), STAGGER_MS)
  }

  #fail(verdict: Verdict): void {
    if (this.#over) return
    this.#finish()
    this.#done({ _tag: "Failed", ...verdict })
  }

  #finish(): void {
    this.#over = true
    clearTimeout(this.#deadline)
    this.#leaveLookup?.()
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
  EMFILE: "too_many_flows",
  ENFILE: "too_many_flows",
  EACCES: "unreachable",
  EPERM: "unreachable",
  ETIMEDOUT: "timed_out"
}

/** Verdicts of failed connects, the most informative last. */
const TELLING: ReadonlyArray<VerdictCode> = ["internal", "unreachable", "timed_out", "refused", "too_many_flows"]

/** Reason text for a name of which no address may be dialled. */
const whyDenied = (host: string, found: ReadonlyArray<Address>): string => {
  const own = found.find(({ address }) => kindOf(address) === "loopback")
  if (own !== undefined) {
    return `${host} is ${own.address}, a loopback address of the connector's host; if that is intended, set allowLoopback: true at this resource`
  }
  return `${host} is ${found[0]?.address}, and no resource may be at a link-local, multicast or metadata address`
}

const SAYS: Partial<Record<VerdictCode, string>> = {
  refused: "the resource's host refused the connection",
  unreachable: "the connector's host has no route to the resource",
  timed_out: "the resource did not answer",
  too_many_flows: "the connector may open no more sockets; raise its limit of open files"
}

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : ""

/** Translates a failed connect into the verdict that the application gets. */
const verdictOf = (error: unknown): Verdict => {
  const errno = codeOf(error)
  const code = VERDICT_OF[errno] ?? "internal"
  return { code, reason: errno === "" ? "the dial failed" : `${SAYS[code] ?? "the dial failed"} (${errno})` }
}

/** Addresses of the connector's own host. A resource may have one only with `allowLoopback`. */
const loopback = new net.BlockList()
loopback.addSubnet("127.0.0.0", 8, "ipv4")
loopback.addAddress("::1", "ipv6")

/**
 * Addresses that are never reached through a connector: those without a host, those of its links,
 * and cloud metadata services.
 */
const forbidden = new net.BlockList()
forbidden.addSubnet("0.0.0.0", 8, "ipv4") // "this host"
forbidden.addSubnet("169.254.0.0", 16, "ipv4") // link-local, and metadata in most clouds
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
MAPPED.addSubnet("::", 96, "ipv6") // IPv4-compatible, RFC 4291, section 2.5.5.1
MAPPED.addSubnet("64:ff9b::", 96, "ipv6") // NAT64, RFC 6052
MAPPED.addSubnet("64:ff9b:1::", 48, "ipv6") // NAT64, RFC 8215

type Kind = "ordinary" | "loopback" | "forbidden"

/** Classifies a literal address. Text that is no address is `forbidden`. */
const kindOf = (address: string): Kind => {
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

/**
 * Whether a literal address may be dialled. `allowLoopback` additionally permits loopback
 * addresses, and no others.
 */
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

/**
 * The IPv4 address that a gateway on the path would translate to. `null` if the address contains
 * none.
 */
const embeddedIpv4 = (address: string, bytes: Buffer): string | null => {
  if (MAPPED.check(address, "ipv6")) return bytes.subarray(12).join(".")
  // 6to4 (RFC 3056)
  return bytes[0] === 0x20 && bytes[1] === 0x02 ? bytes.subarray(2, 6).join(".") : null
}

/** Parses a valid IPv6 literal without a zone into 16 bytes. */
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
