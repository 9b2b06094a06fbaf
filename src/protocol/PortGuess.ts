/**
 * Port guessing for one session, without I/O: a direct path between a side whose translator has another port for every
 * destination (here "hard") and a side with one port for all that lets in only whom it wrote to ("easy").
 *
 * The hard side opens up to `SOCKETS` further sockets, looks with some of them at which ports it gets, and sends one sealed
 * probe from each to the easy side's outside address, so that each holds a port of its translator open for that address. Then
 * it tells the easy side, which sends sealed probes from its one socket to the hard side's outside addresses: where a counter
 * must have got to, then at random without repeats. One that meets an open port arrives, and its answer comes back.
 *
 * Of N = 64,512 ports K = 256 are open; m probes without repeats all miss with a chance of (N-K choose m) / (N choose m), which
 * is close to (1 - m/N)^K: 1,500 probes fail once in 414 attempts, half of all attempts need 175. (With repeats, by the formula
 * usual for this, (1 - K/N)^m: once in 389.) The idea is Tailscale's: D. Anderson, "How NAT traversal works", 2020.
 *
 * An attempt sends at most `MAX_PROBES`, stays within `GuessBudget`, and probes only addresses that the peer has told in sealed
 * messages. It runs while the relay carries the session and a direct path is sought: while flows are open, and for
 * `PathMachine.SEEK_MS` after the last one. Times: ms, monotonic.
 */
import * as Candidate from "./Candidate.ts"
import type { GuessBudget } from "./GuessBudget.ts"
import * as GuessOrder from "./GuessOrder.ts"
import type { GuessReason, PathRef } from "./PathRef.ts"
import * as PortPattern from "./PortPattern.ts"
import type { SocketAddr } from "./SocketAddr.ts"
import * as StunPlaces from "./StunPlaces.ts"

export const SOCKETS = 256
/** Of them, that are first used to see which ports the translator gives. */
export const SAMPLES = 8
/** Guessed probes in one attempt, whatever else happens. */
export const MAX_PROBES = 1_500
/** Ordinary probes prove a path sooner than this where that can be done at all. */
export const WAIT_MS = 500
const STEP_MS = 50
const STEP_PROBES = 10
const SAMPLE_MS = 400
/** With fewer sockets than this guessing would hardly ever hit. */
const MIN_SOCKETS = 32
/** Hard side, from when all sockets are open: the easy side takes 8 s for all its probes, more where its thread is busy. */
export const OPEN_MS = 12_000
/** Easy side: after this the hard side has closed its sockets. */
export const GUESS_MS = 11_000
/** After the last probe: its answer may be under way. */
const LAST_MS = 2_000
/** The relay may lose one. */
const TELL_GAPS_MS: ReadonlyArray<number> = [0, 300, 700, 1_500, 3_000]
/** Before another attempt, doubled each time; and the least between two attempts, however the first one ended. */
export const BACK_OFF_MS = 60_000
export const MAX_BACK_OFF_MS = 3_600_000
/** A peer whose network changes may shorten the wait at most this often. */
const PEER_RESET_MS = 60_000
/** Addresses in one message. */
export const MAX_SEEN = 8

export type Output =
  /** Open so many sockets and have each ask a STUN server; what is still open from before is closed. */
  | { readonly _tag: "SampleGuess"; readonly count: number }
  /** Open so many more, the sampled ones first, and send a sealed probe from each. */
  | { readonly _tag: "OpenGuess"; readonly to: SocketAddr; readonly count: number }
  /** Close all sockets of the attempt but one by which the peer's probe has come. */
  | { readonly _tag: "CloseGuess" }
  /** A sealed probe to each, from the socket that is used otherwise. */
  | { readonly _tag: "SendGuesses"; readonly to: ReadonlyArray<SocketAddr> }
  | { readonly _tag: "TellOpened"; readonly opened: Opened }

/** "My sockets are open": told in a sealed message. */
export type Opened = {
  /** Another one for each attempt. */
  readonly attempt: number
  /** As the hard side's translator mapped its newest sockets, oldest first; at most `MAX_SEEN`. */
  readonly seen: ReadonlyArray<SocketAddr>
  /** From one port to the next, -128 to 127; null: no pattern was found. */
  readonly delta: number | null
}

/** What path choice knows. */
export type Facts = {
  /** The relay carries the session. */
  readonly relayed: boolean
  /** Some direct path answers. */
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

export class PortGuess {
  readonly #budget: GuessBudget
  readonly #nextSeed: () => number
  #phase: Phase = IDLE
  #local: Candidate.Mapping | null = null
  #peer: Candidate.Mapping | null = null
  /** The easy side's outside address; null: none is known. */
  #target: SocketAddr | null = null
  #peerHosts: ReadonlyArray<string> = []
  /** When both sides' translators were first known and the session was relayed without another path. */
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

  /** `nextSeed`: 32 random bits, others each time. The budget is the node's. */
  constructor(options: { readonly budget: GuessBudget; readonly nextSeed: () => number }) {
    this.#budget = options.budget
    this.#nextSeed = options.nextSeed
  }

  /** Why there is no direct path, as far as guessing knows; null: it has nothing to say. */
  get reason(): GuessReason | null {
    if (this.#phase._tag !== "Idle") return "guessing"
    return this.#local === "varies" && this.#peer === "varies" ? "symmetric_both" : this.#outcome
  }
  /** Guessed probes and opening ones since the session began. */
  get probes(): number {
    return this.#probes
  }

  // -------------------------------------------------------------------------------------------------------------- inputs

  /** Null: not known. */
  onLocal(mapping: Candidate.Mapping | null): void {
    this.#local = mapping
  }

  /** The peer's newest list. */
  onPeer(mapping: Candidate.Mapping | null, list: ReadonlyArray<Candidate.Candidate>, now: number): void {
    this.#peer = mapping
    const usable = Candidate.accept(list, { allowLoopback: false }).filter(({ address }) =>
      Candidate.familyOf(address.host) === 4
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

  /** This host's network is another one: what failed there says nothing. */
  onNetworkChange(): void {
    this.#forgive()
  }

  /** An answer to a question of `SampleGuess`. */
  onSample(sample: PortPattern.Sample): void {
    if (this.#phase._tag === "Sampling" && this.#samples.length < SAMPLES) this.#samples.push(sample)
  }

  /** So many sockets could not be opened. */
  onRefused(count: number): void {
    if (this.#phase._tag !== "Idle") this.#refused += count
  }

  onOpened(opened: Opened): void {
    if (opened.attempt !== this.#lastAttempt) this.#heard = opened
  }

  /** An authenticated probe of the peer's came by this path. */
  onPing(path: PathRef): void {
    if (path.kind === "direct" && this.#phase._tag !== "Idle") this.#proved = true
  }

  // ------------------------------------------------------------------------------------------------------------ what to do

  /** After any input, and when `wakeAt` is due. May be called late or too often. */
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

  /** Null: nothing is due by itself. */
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
      this.#notBefore = now + 1_000 // another session has its turn, or the hour is spent
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
    // A host that has no more descriptors uses those that it got.
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
    // A peer whose sockets got no STUN answer has told its outside address before.
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
    if (phase.sent >= MAX_PROBES) return [] // the last ones may still be answered
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

  /** The session is over. */
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
