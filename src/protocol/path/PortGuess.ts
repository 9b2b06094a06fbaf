/**
 * Port guessing (port prediction) for one session, without I/O. It finds a direct path between a
 * side whose NAT uses another port for every destination (here "hard") and a side whose NAT uses
 * one port for all destinations, but lets in only packets from addresses and ports that it has sent
 * to ("easy").
 *
 * The hard side opens up to `SOCKETS` extra sockets and looks with some of them at which ports it
 * gets. It sends one sealed probe from each to the easy side's outside address, so that each holds
 * a port of its NAT open for that address. Then it tells the easy side, which sends sealed probes
 * from its one socket to the hard side's outside addresses: first where a counter must have got to,
 * then at random without repeats. A probe that meets an open port arrives, and its answer comes
 * back.
 *
 * K = 256 of N = 64,512 ports are open. The chance that m probes without repeats all miss is (N-K
 * choose m) / (N choose m), which is close to (1 - m/N)^K: 1,500 probes fail once in 414 attempts,
 * and half of all attempts need 175. (With repeats, by the formula usual for this, (1 - K/N)^m:
 * once in 389.) The idea is Tailscale's: D. Anderson, "How NAT traversal works", 2020.
 *
 * An attempt sends at most `MAX_PROBES`, stays within `GuessBudget`, and probes only addresses that
 * the peer has told in sealed messages. It runs while the relay carries the session and a direct
 * path is sought: while flows are open, and for `PathMachine.SEEK_MS` after the last one. Times are
 * in ms, monotonic.
 */
import { familyOf, type SocketAddr } from "../bytes/SocketAddr.ts"
import * as Candidate from "../candidate/Candidate.ts"
import * as PortPattern from "../nat/PortPattern.ts"
import * as StunPlaces from "../nat/StunPlaces.ts"
import type { GuessBudget } from "./GuessBudget.ts"
import * as GuessOrder from "./GuessOrder.ts"
import type { GuessReason, PathRef } from "./PathRef.ts"

/** Most extra sockets that the side behind the symmetric NAT opens in one attempt. */
export const SOCKETS = 256
/** Number of sockets that are opened first, to see which ports the NAT gives. */
export const SAMPLES = 8
/** Most guessed probes in one attempt. */
export const MAX_PROBES = 1_500
/** Delay before an attempt begins. Ordinary probes that can prove a path at all do so within it. */
export const WAIT_MS = 500
/** Gap between two steps of an attempt. */
const STEP_MS = 50
/** Most sockets that one step opens, and most probes that it sends. */
const STEP_PROBES = 10
/** Longest wait for the answers that show which ports the NAT gives. */
const SAMPLE_MS = 400
/** Fewest sockets for an attempt. With fewer it would hardly ever succeed. */
const MIN_SOCKETS = 32
/**
 * How long the side behind the symmetric NAT keeps its sockets after all of them are open. The
 * other side needs 8 s for all its probes, and more if its thread is busy.
 */
export const OPEN_MS = 12_000
/**
 * Longest time for which one attempt guesses. The side behind the symmetric NAT then closes its
 * sockets.
 */
export const GUESS_MS = 11_000
/** Wait after the last probe, because its answer may still be on the way. */
const LAST_MS = 2_000
/**
 * Times after all sockets are open at which the hard side tells the easy side so. The relay may
 * lose a message.
 */
const TELL_GAPS_MS: ReadonlyArray<number> = [0, 300, 700, 1_500, 3_000]
/**
 * Shortest wait between two attempts, however the first one ended. It doubles with each attempt
 * that fails, up to {@link MAX_BACK_OFF_MS}.
 */
export const BACK_OFF_MS = 60_000
/** Longest wait between two attempts. */
export const MAX_BACK_OFF_MS = 3_600_000
/**
 * Shortest time between two changes of the peer's network that cancel the wait for the next
 * attempt.
 */
const PEER_RESET_MS = 60_000
/** Most addresses in one {@link Opened} message. */
export const MAX_SEEN = 8

/** An action that port guessing wants. */
export type Output =
  /**
   * Opens `count` sockets and has each ask a STUN server. Sockets that are still open from before
   * are closed.
   */
  | { readonly _tag: "SampleGuess"; readonly count: number }
  /**
   * Opens `count` more sockets, of which the sampled ones come first, and sends a sealed probe from
   * each.
   */
  | { readonly _tag: "OpenGuess"; readonly to: SocketAddr; readonly count: number }
  /** Closes all sockets of the attempt, except one by which the peer's probe has come. */
  | { readonly _tag: "CloseGuess" }
  /** Sends a sealed probe to each address, from the socket that is used otherwise. */
  | { readonly _tag: "SendGuesses"; readonly to: ReadonlyArray<SocketAddr> }
  | { readonly _tag: "TellOpened"; readonly opened: Opened }

/** Message to the peer: the sockets for port prediction are open. It is sent sealed. */
export type Opened = {
  /** Number that differs for each attempt. */
  readonly attempt: number
  /**
   * Outside addresses that the sender's NAT gave to its newest sockets, oldest first; at most
   * {@link MAX_SEEN}.
   */
  readonly seen: ReadonlyArray<SocketAddr>
  /**
   * Difference from the port of one socket to that of the next, -128 to 127. `null` if no pattern
   * was found.
   */
  readonly delta: number | null
}

/** State of path choice that port guessing needs. */
export type Facts = {
  /** Whether the relay carries the session. */
  readonly relayed: boolean
  /** Whether a direct path answers. */
  readonly direct: boolean
  /** Whether the session still looks for a direct path: `PathMachine.isSeeking`. */
  readonly seeking: boolean
}

type Phase =
  | { readonly _tag: "Idle" }
  | { readonly _tag: "Sampling"; readonly until: number }
  | { readonly _tag: "Opening"; readonly opened: number }
  | { readonly _tag: "Open"; readonly opened: Opened; readonly since: number; readonly told: number }
  | { readonly _tag: "Guessing"; readonly order: Generator<SocketAddr>; readonly sent: number; readonly until: number }

const IDLE: Phase = { _tag: "Idle" }

/** Port guessing of one session. */
export class PortGuess {
  readonly #budget: GuessBudget
  readonly #nextSeed: () => number
  #phase: Phase = IDLE
  #local: Candidate.Mapping | null = null
  #peer: Candidate.Mapping | null = null
  /** The easy side's outside address. `null` if none is known. */
  #target: SocketAddr | null = null
  #peerHosts: ReadonlyArray<string> = []
  /**
   * When an attempt became possible: both NATs' mapping is known, and the session is
   * relayed without another path. `null` if it is not possible.
   */
  #waitFrom: number | null = null
  #notBefore = -Infinity
  #failures = 0
  #peerResetAt = -Infinity
  #outcome: GuessReason | null = null
  #samples: Array<PortPattern.Sample> = []
  #refused = 0
  #heard: Opened | null = null
  #lastAttempt: number | null = null
  #proved = false
  #stepAt = -Infinity
  #probes = 0

  /**
   * Makes the guessing of one session. `budget` is the node's, shared by all its sessions.
   * `nextSeed` returns 32 random bits, others each time.
   */
  constructor(options: { readonly budget: GuessBudget; readonly nextSeed: () => number }) {
    this.#budget = options.budget
    this.#nextSeed = options.nextSeed
  }

  /** Reason why there is no direct path, as far as port guessing knows. `null` if it knows none. */
  get reason(): GuessReason | null {
    if (this.#phase._tag !== "Idle") return "guessing"
    return this.#local === "varies" && this.#peer === "varies" ? "symmetric_both" : this.#outcome
  }
  /** Number of probes since the session began, both guessed ones and those that open a port. */
  get probes(): number {
    return this.#probes
  }

  // --- Inputs

  /** Takes how this side's NAT maps ports. `null` if not known. */
  onLocal(mapping: Candidate.Mapping | null): void {
    this.#local = mapping
  }

  /**
   * Takes the peer's newest list of candidates, and how its NAT maps ports (`null` if not known).
   */
  onPeer(mapping: Candidate.Mapping | null, list: ReadonlyArray<Candidate.Candidate>, now: number): void {
    this.#peer = mapping
    const usable = Candidate.accept(list, { allowLoopback: false }).filter(({ address }) =>
      familyOf(address.host) === 4
    )
    const outside = usable.find(({ kind }) => kind === "srflx") ??
      usable.find(({ address, kind }) => kind === "host" && StunPlaces.isPublic(address.host))
    this.#target = outside?.address ?? null
    const hosts = usable.filter(({ kind }) => kind === "srflx").map(({ address }) => address.host)
    const moved = hosts.some((host) => !this.#peerHosts.includes(host))
    this.#peerHosts = hosts
    if (moved && now - this.#peerResetAt >= PEER_RESET_MS) {
      this.#peerResetAt = now
      this.#forgive()
    }
  }

  /** Notes that this host is in another network. Earlier failures are then forgotten. */
  onNetworkChange(): void {
    this.#forgive()
  }

  /** Takes a server's answer to a socket of `SampleGuess`. */
  onSample(sample: PortPattern.Sample): void {
    if (this.#phase._tag === "Sampling" && this.#samples.length < SAMPLES) this.#samples.push(sample)
  }

  /** Notes that `count` sockets could not be opened. */
  onRefused(count: number): void {
    if (this.#phase._tag !== "Idle") this.#refused += count
  }

  /**
   * Takes the peer's message that its sockets are open. A message of an attempt that was already
   * answered is ignored.
   */
  onOpened(opened: Opened): void {
    if (opened.attempt !== this.#lastAttempt) this.#heard = opened
  }

  /**
   * Notes an authenticated probe of the peer. If it came by a direct path, the attempt has
   * succeeded.
   */
  onPing(path: PathRef): void {
    if (path.kind === "direct" && this.#phase._tag !== "Idle") this.#proved = true
  }

  // --- Steps

  /**
   * Returns what to do. Call it after any input, and when `wakeAt` is due. It may be called late or
   * too often.
   */
  step(facts: Facts, now: number): ReadonlyArray<Output> {
    if (this.#phase._tag !== "Idle") {
      if (this.#proved || facts.direct) return this.#end(now, "hit")
      if (!facts.relayed || !facts.seeking) return this.#end(now, "stopped")
    }
    switch (this.#phase._tag) {
      case "Idle":
        return this.#begin(facts, now)
      case "Sampling":
        return this.#sampling(this.#phase.until, now)
      case "Opening":
        return this.#opening(this.#phase.opened, now)
      case "Open":
        return this.#open(this.#phase, now)
      case "Guessing":
        return this.#guessing(this.#phase, now)
    }
  }

  /** When to call `step` again. `null` if only an input can change anything. */
  wakeAt(): number | null {
    switch (this.#phase._tag) {
      case "Idle":
        return this.#waitFrom === null ? null : Math.max(this.#waitFrom + WAIT_MS, this.#notBefore)
      case "Sampling":
        return this.#phase.until
      case "Opening":
      case "Guessing":
        return this.#stepAt
      case "Open": {
        const { since, told } = this.#phase
        return since + (TELL_GAPS_MS[told] ?? OPEN_MS)
      }
    }
  }

  #begin({ direct, relayed, seeking }: Facts, now: number): ReadonlyArray<Output> {
    const asked = this.#heard
    this.#heard = null
    const free = relayed && !direct && seeking
    if (direct) this.#outcome = null
    if (asked !== null && free && this.#local !== "varies" && this.#mayBegin(now)) return this.#guess(asked, now)
    const hard = this.#local === "varies" && this.#peer === "steady" && this.#target !== null
    if (!free || !hard) {
      this.#waitFrom = null
      return []
    }
    this.#waitFrom ??= now
    if (now < this.#waitFrom + WAIT_MS || now < this.#notBefore) return []
    if (!this.#mayBegin(now) || !this.#budget.hold(this)) {
      this.#notBefore = now + 1_000 // another session is guessing, or the hour's budget is spent
      return []
    }
    this.#start({ _tag: "Sampling", until: now + SAMPLE_MS })
    return [{ _tag: "SampleGuess", count: SAMPLES }]
  }

  #mayBegin(now: number): boolean {
    return now >= this.#notBefore && this.#budget.left(now) >= MAX_PROBES
  }

  #start(phase: Phase): void {
    this.#phase = phase
    this.#proved = false
    this.#samples = []
    this.#refused = 0
    this.#waitFrom = null
    this.#stepAt = -Infinity
  }

  #sampling(until: number, now: number): ReadonlyArray<Output> {
    if (now < until && this.#samples.length < SAMPLES) return []
    this.#phase = { _tag: "Opening", opened: 0 }
    return this.#opening(0, now)
  }

  #opening(opened: number, now: number): ReadonlyArray<Output> {
    if (now < this.#stepAt) return []
    const to = this.#target
    if (to === null || this.#refused > SOCKETS - MIN_SOCKETS) return this.#end(now, "unavailable")
    this.#stepAt = now + STEP_MS
    const count = this.#budget.take(Math.min(STEP_PROBES, SOCKETS - opened), now)
    this.#probes += count
    const out: Array<Output> = count === 0 ? [] : [{ _tag: "OpenGuess", to, count }]
    // A host that has no more descriptors uses the sockets that it got.
    if (opened + count < SOCKETS && this.#refused === 0) {
      this.#phase = { _tag: "Opening", opened: opened + count }
      return out
    }
    if (opened + count - this.#refused < MIN_SOCKETS) return [...out, ...this.#end(now, "unavailable")]
    const { delta, value } = PortPattern.of(this.#samples)
    const seen = this.#samples.map(({ mapped }) => mapped)
    const tell: Opened = { attempt: this.#nextSeed() >>> 0, seen, delta: value === "sequential" ? delta : null }
    this.#phase = { _tag: "Open", opened: tell, since: now, told: 0 }
    return [...out, ...this.#open(this.#phase, now)]
  }

  #open(phase: Extract<Phase, { _tag: "Open" }>, now: number): ReadonlyArray<Output> {
    if (now - phase.since >= OPEN_MS) return this.#end(now, "exhausted")
    const gap = TELL_GAPS_MS[phase.told]
    if (gap === undefined || now < phase.since + gap) return []
    this.#phase = { ...phase, told: phase.told + 1 }
    return [{ _tag: "TellOpened", opened: phase.opened }]
  }

  #guess(opened: Opened, now: number): ReadonlyArray<Output> {
    this.#lastAttempt = opened.attempt
    // A peer whose sockets got no STUN answer has told its outside addresses as candidates.
    const seen = opened.seen.length > 0
      ? opened.seen.slice(0, MAX_SEEN)
      : this.#peerHosts.map((host) => ({ host, port: GuessOrder.MIN_PORT }))
    const order = GuessOrder.of(seen, opened.delta, this.#nextSeed())
    this.#start({ _tag: "Guessing", order, sent: 0, until: now + GUESS_MS })
    return this.step({ relayed: true, direct: false, seeking: true }, now)
  }

  #guessing(phase: Extract<Phase, { _tag: "Guessing" }>, now: number): ReadonlyArray<Output> {
    if (now < this.#stepAt) return []
    if (now >= phase.until) return this.#end(now, "exhausted")
    this.#stepAt = now + STEP_MS
    if (phase.sent >= MAX_PROBES) return [] // the last probes may still be answered
    const count = this.#budget.take(Math.min(STEP_PROBES, MAX_PROBES - phase.sent), now)
    const to: Array<SocketAddr> = []
    for (let i = 0; i < count; i++) {
      const next = phase.order.next()
      if (next.done === true) break
      to.push(next.value)
    }
    this.#probes += to.length
    const sent = phase.sent + to.length
    this.#phase = { ...phase, sent, until: sent < MAX_PROBES ? phase.until : Math.min(phase.until, now + LAST_MS) }
    return to.length === 0 ? [] : [{ _tag: "SendGuesses", to }]
  }

  #end(now: number, how: "hit" | "stopped" | "exhausted" | "unavailable"): ReadonlyArray<Output> {
    const hard = this.#phase._tag !== "Guessing"
    const failed = how === "exhausted" || how === "unavailable"
    this.#phase = IDLE
    this.#waitFrom = failed && hard ? now : null // so that it is woken for the next attempt
    this.#budget.release(this)
    this.#notBefore = now + Math.min(BACK_OFF_MS * 2 ** Math.min(this.#failures, 10), MAX_BACK_OFF_MS)
    this.#failures = failed ? this.#failures + 1 : how === "hit" ? 0 : this.#failures
    this.#outcome = how === "exhausted" ? "guess_exhausted" : how === "unavailable" ? "guess_unavailable" : null
    return hard ? [{ _tag: "CloseGuess" }] : []
  }

  /** Ends port guessing, because the session has ended. */
  stop(): void {
    this.#phase = IDLE
    this.#budget.release(this)
  }

  #forgive(): void {
    this.#failures = 0
    this.#notBefore = -Infinity
    this.#outcome = null
  }
}
