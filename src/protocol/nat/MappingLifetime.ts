/**
 * Finds out how long the NATs and filters between this host and a STUN server keep a UDP mapping
 * that nobody uses, by the method of RFC 5780, section 4.6. A socket asks the server once and is
 * silent. Then another socket has the server answer to the mapped port of the first. If that answer
 * arrives, the mapping has outlived the silence. A later question that shows the same address would
 * prove nothing, because most NATs give a socket the port that it had before.
 *
 * Each step uses a fresh mapping. Many NATs keep a mapping longer once it has carried packets both
 * ways for a while, and the mappings that a node needs are fresh at first. Without I/O: the caller
 * owns `SOCKETS` fresh sockets, sends what `poll` returns and passes in what arrives. Times are in
 * ms, monotonic.
 */
import { Either, Schema } from "effect"
import type { SocketAddr } from "../bytes/SocketAddr.ts"
import * as Stun from "./Stun.ts"
import * as StunRetry from "./StunRetry.ts"

/**
 * Times of silence that are tried, in ms. NATs are commonly set to these (RFC 4787, section 4.3,
 * requires two minutes).
 */
export const STEPS_MS: ReadonlyArray<number> = [10_000, 30_000, 60_000]
const LONGEST_MS = Math.max(...STEPS_MS)
/**
 * How long before the end of a step the server is asked. A NAT whose timeout equals the step then
 * still passes it.
 */
export const LEAD_MS = 1_500
/**
 * Share of the outlived silence after which a keepalive is sent. If one is lost, it is repeated
 * within the rest.
 */
const KEEP_SHARE = 0.8
/**
 * Gap between keepalives if the mapping did not last even for the first step. The shortest timeouts
 * of NATs are a little longer.
 */
export const MIN_KEEPALIVE_MS = 4_000

/**
 * Index of the socket that has the server answer to the others. Those before it serve one step
 * each.
 */
const ASKER = STEPS_MS.length
/** Number of fresh sockets that the caller must provide. */
export const SOCKETS = ASKER + 1
/**
 * Schedule of a request: sends at 0, 100, 300, 700 and 1,500 ms, failed at 3 s. The round trip is
 * not known.
 */
const SCHEDULE: StunRetry.Schedule = { initialMs: 100, sends: 5, lastWaitMs: 1500 }

/** How long a NAT keeps an idle mapping. */
export const Lifetime = Schema.Struct({
  /** Longest silence that a mapping outlived, in ms. 0 if none did. */
  heldMs: Schema.Number,
  /** A silence that a mapping did not outlive, in ms. `null` if there was none. */
  lostMs: Schema.NullOr(Schema.Number),
  /** Why the lifetime is not known better. `null` if it is as well known as the steps allow. */
  reason: Schema.NullOr(Schema.String)
})
export type Lifetime = typeof Lifetime.Type

/**
 * Returns the gap between keepalives, in ms. It is `unknownMs` if too little is known about the
 * lifetime.
 */
export const keepaliveMs = (lifetime: Lifetime | null, unknownMs: number): number =>
  lifetime === null || lifetime.reason !== null
    ? unknownMs
    : Math.floor(Math.min(KEEP_SHARE * LONGEST_MS, Math.max(MIN_KEEPALIVE_MS, KEEP_SHARE * lifetime.heldMs)))

/**
 * Returns the shortest of the lifetimes that were found on several default routes. An uncertain one
 * counts only if there is no other. `null` if there are none.
 */
export const shortest = (lifetimes: ReadonlyArray<Lifetime>): Lifetime | null =>
  lifetimes.reduce<Lifetime | null>((least, one) => {
    if (least === null || least.reason !== null) return one
    return one.reason === null && one.heldMs < least.heldMs ? one : least
  }, null)

/** A datagram to send from the socket with index `socket`. */
export interface Send {
  readonly socket: number
  readonly to: SocketAddr
  readonly bytes: Uint8Array
}

/** Datagrams to send, and when to poll again. */
export type Poll = {
  readonly sends: ReadonlyArray<Send>
  /** When to poll again, unless something arrives before. */
  readonly wakeAt: number
  /** `null` until everything has been found out. */
  readonly report: Lifetime | null
}

/** Options of {@link MappingLifetime}. */
export interface Options {
  readonly server: SocketAddr
  readonly newTxId: () => Uint8Array
  readonly now: number
}

/**
 * A request of one step.
 * - `bind`: makes the step's mapping.
 * - `control`: checks whether the asker is seen at the same address as the mapping.
 * - `reach`: the asker has the server answer to the mapping.
 * - `again`: checks whether the server still answers the step's own socket, so that its silence
 *   means something.
 */
type Test = `bind${number}` | "control" | "reach" | "again"
type Asked = { readonly txId: string; readonly send: Send; readonly at: number; readonly retry: StunRetry.State }
type Mapping = { readonly mapped: SocketAddr; readonly askedAt: number; readonly answeredAt: number }

const SILENT = "the server does not answer"
const ELSEWHERE = "the NAT has several public addresses, and this host's sockets do not share one"
const UNABLE = "the server does not answer to a port other than the one that asked"

/** One search for the lifetime of idle mappings. */
export class MappingLifetime {
  readonly #options: Options
  readonly #asked = new Map<Test, Asked>()
  readonly #mappings = new Map<number, Mapping>()
  #outbox: Array<Send> = []
  #step = 0
  /**
   * Outside address of the asker. `null` if it was not asked for in this step, or there was no
   * answer.
   */
  #asker: SocketAddr | null = null
  #begun = false
  #reachedAt = 0
  #unable = false
  /** Longest that the silence of the present step may have been. */
  #silenceMs = 0
  #heldMs = 0
  #report: Lifetime | null = null

  constructor(options: Options) {
    this.#options = options
    for (let step = 0; step < STEPS_MS.length; step++) this.#ask(`bind${step}`, step, options.now)
  }

  /** Returns what to send now and when to poll again, and the report at the end. */
  poll(now: number): Poll {
    for (const [test, asked] of this.#asked) {
      const step = StunRetry.onTick(asked.retry, now)
      if (step._tag === "TimedOut") this.#onSilence(test, asked, now)
      if (step._tag !== "Send" || !this.#asked.has(test)) continue
      this.#asked.set(test, { ...asked, at: now, retry: step.state })
      this.#outbox.push(asked.send)
    }
    if (this.#report === null && now >= this.#dueAt) this.#begin(now)
    const sends = this.#outbox
    this.#outbox = []
    const wakeAt = Math.min(this.#dueAt, ...[...this.#asked.values()].map(({ retry }) => retry.deadline))
    return { sends, wakeAt, report: this.#report }
  }

  /**
   * Handles one whole datagram that arrived at `socket`. Stray and forged datagrams are ignored.
   */
  onDatagram(socket: number, from: SocketAddr, bytes: Uint8Array, now: number): void {
    const { server } = this.#options
    if (from.host !== server.host || from.port !== server.port) return
    const message = Either.getOrNull(Stun.decode(bytes))
    if (message === null || message._tag === "Request") return
    const id = Stun.toHex(message.txId)
    for (const [test, asked] of this.#asked) {
      if (asked.txId !== id) continue
      const reached = test === "reach" && message._tag === "Success"
      if (socket !== (reached ? this.#step : asked.send.socket)) return
      return this.#onAnswer(test, asked, message._tag === "Success" ? message.mapped : null, now)
    }
  }

  /** Handles an answer. `mapped` is `null` for an error. */
  #onAnswer(test: Test, asked: Asked, mapped: SocketAddr | null, now: number): void {
    this.#asked.delete(test)
    if (test === "reach") return mapped === null ? this.#onUnable(asked, now) : this.#held()
    if (mapped === null) return this.#finish(SILENT)
    if (test === "control") this.#asker = mapped
    else if (test === "again") this.#onAgain(mapped)
    else this.#mappings.set(asked.send.socket, { mapped, askedAt: asked.at, answeredAt: now })
  }

  #onSilence(test: Test, asked: Asked, now: number): void {
    this.#asked.delete(test)
    if (test !== "reach") return this.#finish(SILENT)
    // `control` was sent before `reach`, so it has been answered: its own silence would have ended
    // the search.
    if (this.#asker?.host !== this.#mappings.get(this.#step)?.mapped.host) return this.#finish(ELSEWHERE)
    this.#askAgain(asked, now)
  }

  #onUnable(asked: Asked, now: number): void {
    this.#asked.delete("control")
    this.#unable = true
    this.#askAgain(asked, now)
  }

  #askAgain({ at }: Asked, now: number): void {
    this.#silenceMs = Math.ceil(at - this.#mappings.get(this.#step)!.askedAt)
    this.#ask("again", this.#step, now)
  }

  /** Handles the answer to a step's socket that was not reached and then asked again. */
  #onAgain(mapped: SocketAddr): void {
    const before = this.#mappings.get(this.#step)!.mapped
    if (this.#unable && mapped.host === before.host && mapped.port === before.port) return this.#finish(UNABLE)
    this.#finish(null, this.#silenceMs)
  }

  #held(): void {
    this.#asked.delete("control")
    this.#heldMs = Math.floor(this.#reachedAt - this.#mappings.get(this.#step)!.answeredAt)
    this.#step++
    this.#begun = false
    this.#asker = null
    if (this.#step === STEPS_MS.length) this.#finish(null)
  }

  #finish(reason: string | null, lostMs: number | null = null): void {
    this.#asked.clear()
    this.#outbox = []
    this.#report = { heldMs: this.#heldMs, lostMs, reason }
  }

  // --- Steps

  /**
   * When the next step is due. `Infinity` if the step has begun, or its mapping is not made yet.
   */
  get #dueAt(): number {
    const mapping = this.#begun ? undefined : this.#mappings.get(this.#step)
    return mapping === undefined ? Infinity : mapping.answeredAt + STEPS_MS[this.#step]! - LEAD_MS
  }

  #begin(now: number): void {
    this.#begun = true
    this.#reachedAt = now
    this.#ask("control", ASKER, now)
    this.#ask("reach", ASKER, now, this.#mappings.get(this.#step)!.mapped.port)
  }

  #ask(test: Test, socket: number, now: number, responsePort?: number): void {
    const txId = this.#options.newTxId()
    const send = { socket, to: this.#options.server, bytes: Stun.encodeRequest({ txId, responsePort }) }
    const step = StunRetry.start(now, SCHEDULE)
    if (step._tag !== "Send") return
    this.#asked.set(test, { txId: Stun.toHex(txId), send, at: now, retry: step.state })
    this.#outbox.push(send)
  }
}
