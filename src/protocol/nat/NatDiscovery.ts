/**
 * Finds out how the NATs and filters between this host and a STUN server behave (RFC 5780, section
 * 4): mapping, filtering, hairpinning, and which ports new sockets get. Without I/O: the caller
 * owns `SOCKETS` fresh sockets, sends what `poll` returns, and passes in what arrives. Times are in
 * ms, monotonic.
 *
 * A behaviour that the server cannot show is reported as unknown, with the reason. Silence counts
 * as filtering only if the address that stayed silent has answered when it was asked directly, from
 * another socket.
 */
import { Either } from "effect"
import { familyOf, renderHostPort, type SocketAddr } from "../bytes/SocketAddr.ts"
import * as Candidate from "../candidate/Candidate.ts"
import type { Behaviour, Hairpin, NatReport } from "./NatReport.ts"
import * as PortPattern from "./PortPattern.ts"
import * as Stun from "./Stun.ts"
import * as StunRetry from "./StunRetry.ts"

/**
 * Sockets whose ports are compared. If a NAT uses 4 public addresses in turn, that is two on each.
 */
const SAMPLES = 8
/** Index of the socket that asks all destinations, so that its mappings show. */
const MAPPING_SOCKET = 0
/** Index of the socket that asks only the server, so that its filter stays closed. */
const FILTER_SOCKET = 1
/** Index of the first socket whose port is compared. */
const FIRST_SAMPLE = 2
/** Number of fresh sockets that the caller must provide. */
export const SOCKETS = FIRST_SAMPLE + SAMPLES

/**
 * Schedule while the round trip is unknown: sends at 0, 100, 300, 700 and 1,500 ms, failed at 3 s.
 */
const FIRST: StunRetry.Schedule = { initialMs: 100, sends: 5, lastWaitMs: 1500 }
/**
 * Schedule for a known round trip. Silence is an answer here, so after the last of four sends there
 * is time for four round trips.
 */
const scheduleFor = (rttMs: number): StunRetry.Schedule => ({
  initialMs: Math.max(100, 1.5 * rttMs),
  sends: 4,
  lastWaitMs: Math.max(800, 4 * rttMs)
})

/** A datagram to send. */
export interface Send {
  /** Index of the socket to send it from. */
  readonly socket: number
  readonly to: SocketAddr
  readonly bytes: Uint8Array
}

/** Options of {@link NatDiscovery}. */
export interface Options {
  readonly server: SocketAddr
  /** Address from which the server is reached. `null` if it is not known. */
  readonly localHost: string | null
  /** Ports of the sockets, by index. */
  readonly localPorts: ReadonlyArray<number>
  readonly newTxId: () => Uint8Array
  readonly now: number
}

/** Datagrams to send, and when to poll again. */
export type Poll = {
  readonly sends: ReadonlyArray<Send>
  /** When to poll again, unless something arrives before. */
  readonly wakeAt: number
  /** `null` until everything has been found out. */
  readonly report: NatReport | null
}

/**
 * Outcome of a test. `Silent`: no answer came. `Unable`: the server refused the request, or ignored
 * what it asked for. `Seen`: the request came back to this host by the hairpin.
 */
type Outcome = Stun.Success | { readonly _tag: "Silent" | "Unable" | "Seen" }
type Test =
  | "first"
  | "control"
  | "otherAddress"
  | "otherPort"
  | "otherBoth"
  | "fromPort"
  | "fromBoth"
  | "hairpinThere"
  | "hairpinBack"
  | `sample${number}`
type Asked = {
  readonly txId: Uint8Array
  readonly send: Send
  /** Address that has to answer. */
  readonly from: SocketAddr
  readonly sentAt: number
  readonly retry: StunRetry.State
}

const same = (a: SocketAddr, b: SocketAddr): boolean => a.host === b.host && a.port === b.port
const ALTERNATES = ["otherAddress", "otherPort", "otherBoth"] as const
const CHANGES = ["fromPort", "fromBoth"] as const

/** One run of the discovery. */
export class NatDiscovery {
  readonly #options: Options
  readonly #asked = new Map<Test, Asked>()
  readonly #outcomes = new Map<Test, Outcome>()
  #outbox: Array<Send> = []
  #rttMs = Infinity
  #schedule = FIRST

  constructor(options: Options) {
    this.#options = options
    this.#ask("first", MAPPING_SOCKET, options.server, options.now)
    this.#ask("control", FILTER_SOCKET, options.server, options.now)
  }

  /** Returns what to send now and when to poll again, and the report at the end. */
  poll(now: number): Poll {
    for (const [test, asked] of this.#asked) {
      const step = StunRetry.onTick(asked.retry, now)
      if (step._tag === "TimedOut") this.#settle(test, { _tag: "Silent" }, now)
      if (step._tag !== "Send") continue
      this.#asked.set(test, { ...asked, sentAt: now, retry: step.state })
      this.#outbox.push(asked.send)
    }
    const sends = this.#outbox
    this.#outbox = []
    const wakeAt = Math.min(...[...this.#asked.values()].map(({ retry }) => retry.deadline))
    return { sends, wakeAt, report: this.#asked.size === 0 ? this.#report() : null }
  }

  /**
   * Handles one whole datagram that arrived at `socket`. Stray and forged datagrams are ignored.
   */
  onDatagram(socket: number, from: SocketAddr, bytes: Uint8Array, now: number): void {
    const decoded = Stun.decode(bytes)
    if (Either.isLeft(decoded)) return
    const message = decoded.right
    const id = Stun.toHex(message.txId)
    for (const [test, asked] of this.#asked) {
      if (Stun.toHex(asked.txId) !== id) continue
      if (message._tag === "Request") {
        const back = test === "hairpinThere" ? FILTER_SOCKET : test === "hairpinBack" ? MAPPING_SOCKET : -1
        if (socket === back) this.#settle(test, { _tag: "Seen" }, now)
      } else if (socket === asked.send.socket) this.#onAnswer(test, asked, from, message, now)
      return
    }
  }

  #onAnswer(test: Test, asked: Asked, from: SocketAddr, message: Exclude<Stun.Message, Stun.Request>, now: number) {
    const rightPlace = same(from, asked.from)
    const changing = !same(asked.from, asked.send.to)
    if (!rightPlace && !changing) return
    if (message._tag === "Error" || !rightPlace) return this.#settle(test, { _tag: "Unable" }, now)
    // With several sends, the answer to an earlier one would make the round trip look too short.
    if (asked.retry.sends === 1) this.#rttMs = Math.min(this.#rttMs, now - asked.sentAt)
    this.#settle(test, message, now)
  }

  // --- Next tests

  #ask(
    test: Test,
    socket: number,
    to: SocketAddr,
    now: number,
    more: { change?: Stun.Change; from?: SocketAddr } = {}
  ): void {
    const { change, from = to } = more
    const txId = this.#options.newTxId()
    const send = { socket, to, bytes: Stun.encodeRequest({ txId, change }) }
    const step = StunRetry.start(now, this.#schedule)
    if (step._tag !== "Send") return
    this.#asked.set(test, { txId, send, from, sentAt: now, retry: step.state })
    this.#outbox.push(send)
  }

  #settle(test: Test, outcome: Outcome, now: number): void {
    this.#asked.delete(test)
    this.#outcomes.set(test, outcome)
    const { server } = this.#options
    const answered = outcome._tag === "Success"
    if (test === "first" && answered) {
      this.#schedule = scheduleFor(Number.isFinite(this.#rttMs) ? this.#rttMs : FIRST.lastWaitMs)
      const { otherAddress, otherBoth, otherPort } = this.#alternates
      if (otherPort !== null) this.#ask("otherPort", MAPPING_SOCKET, otherPort, now)
      if (otherAddress !== null) this.#ask("otherAddress", MAPPING_SOCKET, otherAddress, now)
      if (otherBoth !== null) this.#ask("otherBoth", MAPPING_SOCKET, otherBoth, now)
    }
    if ((test === "first" || test === "control") && this.#success("first") && this.#success("control")) {
      const { otherBoth, otherPort } = this.#alternates
      const port = { address: false, port: true }
      if (otherPort !== null) this.#ask("fromPort", FILTER_SOCKET, server, now, { change: port, from: otherPort })
      const both = { address: true, port: true }
      if (otherBoth !== null) this.#ask("fromBoth", FILTER_SOCKET, server, now, { change: both, from: otherBoth })
    }
    if (this.#success("first") !== null) this.#sample(now)
    if (test.startsWith("hairpin") && outcome._tag === "Seen") {
      this.#asked.delete("hairpinThere")
      this.#asked.delete("hairpinBack")
    }
  }

  /**
   * Asks from one new socket after the other, while no other request of this host takes ports. Then
   * it tests the hairpin.
   */
  #sample(now: number): void {
    if (ALTERNATES.some((test) => this.#asked.has(test)) || this.#asked.has("control")) return
    for (let i = 0; i < SAMPLES; i++) {
      if (this.#asked.has(`sample${i}`)) return
      if (this.#outcomes.has(`sample${i}`)) continue
      return this.#ask(`sample${i}`, FIRST_SAMPLE + i, this.#options.server, now)
    }
    const there = this.#success("control")
    const back = this.#success("first")
    const begun = this.#asked.has("hairpinThere") || this.#outcomes.has("hairpinThere") ||
      this.#outcomes.has("hairpinBack")
    if (there === null || back === null || begun || this.#translated === false) return
    this.#ask("hairpinThere", MAPPING_SOCKET, there.mapped, now)
    this.#ask("hairpinBack", FILTER_SOCKET, back.mapped, now)
  }

  /**
   * Other addresses and ports at which the server says it is. Each is `null` if the server names
   * none of use.
   */
  get #alternates(): Readonly<Record<typeof ALTERNATES[number], SocketAddr | null>> {
    const { server } = this.#options
    const { alternatePort = null, other = null } = this.#success("first") ?? {}
    const usable = other !== null && other.port !== server.port &&
      familyOf(other.host) === familyOf(server.host) &&
      Candidate.isUsableHost(other.host, Candidate.isLoopback(server.host))
    const port = usable ? other.port : alternatePort
    const otherPort = port === null || port === server.port ? null : { host: server.host, port }
    if (!usable || other.host === server.host) return { otherPort, otherAddress: null, otherBoth: null }
    return { otherPort, otherAddress: { host: other.host, port: server.port }, otherBoth: other }
  }

  // --- Findings

  #success(test: Test): Stun.Success | null {
    const outcome = this.#outcomes.get(test)
    return outcome?._tag === "Success" ? outcome : null
  }

  get #translated(): boolean | null {
    const { localHost: host, localPorts } = this.#options
    const first = this.#success("first")
    return host === null || first === null ? null : !same({ host, port: localPorts[MAPPING_SOCKET]! }, first.mapped)
  }

  #report(): NatReport {
    const first = this.#success("first")
    if (first === null) {
      const refused = this.#outcomes.get("first")?._tag === "Unable"
      const blocked = unknown(refused ? "the server answers with an error" : "UDP gets no answer")
      return {
        server: this.#options.server,
        udp: refused ? "works" : "blocked",
        rttMs: null,
        mapped: null,
        publicHosts: [],
        translated: null,
        mapping: blocked,
        filtering: blocked,
        hairpin: blocked,
        ports: { value: "unknown", delta: null, samples: 0, reason: blocked.reason }
      }
    }
    const answers = [...this.#outcomes.values()].filter((outcome) => outcome._tag === "Success")
    return {
      server: this.#options.server,
      udp: "works",
      rttMs: Number.isFinite(this.#rttMs) ? this.#rttMs : null,
      mapped: first.mapped,
      publicHosts: [...new Set(answers.map(({ mapped }) => mapped.host))],
      translated: this.#translated,
      mapping: this.#mapping(first.mapped),
      filtering: this.#filtering(),
      hairpin: this.#hairpin(),
      ports: PortPattern.of(this.#samples())
    }
  }

  #mapping(first: SocketAddr): Behaviour {
    if (this.#translated === false) return known("endpoint-independent")
    const [address, port, both] = ALTERNATES.map((test) => this.#success(test)?.mapped ?? null)
    if (address && both) {
      if (same(first, address)) {
        return same(first, both)
          ? known("endpoint-independent")
          : unknown("the NAT uses another port for another port of the server")
      }
      return known(same(address, both) ? "address-dependent" : "address-and-port-dependent")
    }
    if (port && !same(first, port)) return known("address-and-port-dependent")
    const { otherBoth, otherPort } = this.#alternates
    if (otherPort === null) return unknown("the server announces no second address or port")
    if (!port) return unknown(`${renderHostPort(otherPort)} of the server does not answer`)
    return otherBoth === null
      ? unknown("endpoint-independent or address-dependent: the server has a second port, but no second address")
      : unknown(`endpoint-independent or address-dependent: ${otherBoth.host} of the server does not answer`)
  }

  #filtering(): Behaviour {
    if (this.#success("control") === null) return unknown("a second socket got no answer")
    const { otherBoth, otherPort } = this.#alternates
    if (otherPort === null) return unknown("the server announces no second address or port")
    if (this.#success("fromBoth") !== null) return known("endpoint-independent")
    if (CHANGES.some((test) => this.#outcomes.get(test)?._tag === "Unable")) {
      return unknown("the server does not answer from another address or port")
    }
    if (this.#success("fromPort") === null) {
      return this.#success("otherPort") === null
        ? unknown(`${renderHostPort(otherPort)} of the server does not answer`)
        : known("address-and-port-dependent")
    }
    if (otherBoth === null) {
      return unknown("endpoint-independent or address-dependent: the server has a second port, but no second address")
    }
    return this.#success("otherBoth") === null
      ? unknown(`endpoint-independent or address-dependent: ${renderHostPort(otherBoth)} of the server does not answer`)
      : known("address-dependent")
  }

  #hairpin(): Hairpin {
    if (this.#translated === false) return { value: "not-needed", reason: null }
    const outcomes = [this.#outcomes.get("hairpinThere"), this.#outcomes.get("hairpinBack")]
    if (outcomes.some((outcome) => outcome?._tag === "Seen")) return { value: "works", reason: null }
    if (outcomes.every((outcome) => outcome === undefined)) return unknown("a second socket got no answer")
    // A NAT that has a port for each destination has another one for the way back, which neither
    // socket knows.
    return this.#mapping(this.#success("first")!.mapped).value === "endpoint-independent"
      ? { value: "fails", reason: null }
      : unknown("the sockets may not have the ports that the server saw")
  }

  #samples(): ReadonlyArray<PortPattern.Sample> {
    return Array.from({ length: SAMPLES }, (_, i) => i).flatMap((i) => {
      const local = this.#options.localPorts[FIRST_SAMPLE + i]
      const mapped = this.#success(`sample${i}`)?.mapped
      return local !== undefined && mapped !== undefined ? [{ local, mapped }] : []
    })
  }
}

const known = (value: Behaviour["value"]): Behaviour => ({ value, reason: null })
const unknown = (reason: string) => ({ value: "unknown", reason }) as const
