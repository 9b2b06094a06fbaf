/**
 * Finds out how long the translators and filters between here and a STUN server keep a UDP mapping that nobody uses, by the method
 * of RFC 5780, section 4.6: a socket asks the server once and is silent; then another socket has the server answer to the mapped
 * port of the first. What arrives there has outlived the silence. That a later question shows the same address proves nothing, since
 * most translators give a socket the port that it had before.
 *
 * A fresh mapping for each step: one that has carried packets both ways for a while is kept longer by many translators, and those
 * that a node needs are fresh at first. Sans I/O: the caller owns `SOCKETS` fresh sockets, sends what `poll` says and hands in what
 * arrives. Times: ms, monotonic.
 */
import { Either, Schema } from "effect"
import type { SocketAddr } from "./SocketAddr.ts"
import * as Stun from "./Stun.ts"
import * as StunRetry from "./StunRetry.ts"

/** What translators are commonly set to (RFC 4787, section 4.3, wants two minutes). */
export const STEPS_MS: ReadonlyArray<number> = [10_000, 30_000, 60_000]
const LONGEST_MS = Math.max(...STEPS_MS)
/** The server is asked so much earlier, so that a translator that keeps mappings for just a step is seen to reach it. */
export const LEAD_MS = 1_500
/** Of what was outlived: a keepalive that is lost is repeated within the rest. */
const KEEP_SHARE = 0.8
/** Where not even the first step was outlived: the shortest times that are met are a little longer. */
export const MIN_KEEPALIVE_MS = 4_000

/** One for each step, and the one that has the server answer to them. */
const ASKER = STEPS_MS.length
export const SOCKETS = ASKER + 1
/** Nothing is known of the round trip: sends at 0, 100, 300, 700 and 1,500 ms, failed at 3 s. */
const SCHEDULE: StunRetry.Schedule = { initialMs: 100, sends: 5, lastWaitMs: 1500 }

export const Lifetime = Schema.Struct({
  /** The longest silence that a mapping outlived, ms; 0: none did. */
  heldMs: Schema.Number,
  /** A silence that one did not outlive, ms; null: there was none. */
  lostMs: Schema.NullOr(Schema.Number),
  /** Why it is not known any better; null: it is as well known as the steps allow. */
  reason: Schema.NullOr(Schema.String)
})
export type Lifetime = typeof Lifetime.Type

/** Between two packets that keep a mapping. As long as too little is known, it is `unknownMs`. */
export const keepaliveMs = (lifetime: Lifetime | null, unknownMs: number): number =>
  lifetime === null || lifetime.reason !== null
    ? unknownMs
    : Math.floor(Math.min(KEEP_SHARE * LONGEST_MS, Math.max(MIN_KEEPALIVE_MS, KEEP_SHARE * lifetime.heldMs)))

/** Of several ways out the one that forgets first. */
export const shortest = (lifetimes: ReadonlyArray<Lifetime>): Lifetime | null =>
  lifetimes.reduce<Lifetime | null>((least, one) => {
    if (least === null || least.reason !== null) return one
    return one.reason === null && one.heldMs < least.heldMs ? one : least
  }, null)

export interface Send {
  readonly socket: number
  readonly to: SocketAddr
  readonly bytes: Uint8Array
}

export type Poll = {
  readonly sends: ReadonlyArray<Send>
  /** When to poll again, unless something arrives before. */
  readonly wakeAt: number
  /** Not null: this is all there is to find out. */
  readonly report: Lifetime | null
}

export interface Options {
  readonly server: SocketAddr
  readonly newTxId: () => Uint8Array
  readonly now: number
}

/**
 * `bind`: makes a step's mapping. `control`: whether the asker is seen at the same address. `reach`: the asker has the server answer
 * to the mapping. `again`: whether the server still answers the step's own socket, so that its silence means something.
 */
type Test = `bind${number}` | "control" | "reach" | "again"
type Asked = { readonly txId: string; readonly send: Send; readonly at: number; readonly retry: StunRetry.State }
type Mapping = { readonly mapped: SocketAddr; readonly askedAt: number; readonly answeredAt: number }

const SILENT = "the server does not answer"
const ELSEWHERE = "the translator has several public addresses, and this host's sockets do not share one"
const UNABLE = "the server does not answer to another port than the one that asks"

export class MappingLifetime {
  readonly #options: Options
  readonly #asked = new Map<Test, Asked>()
  readonly #mappings = new Map<number, Mapping>()
  #outbox: Array<Send> = []
  #step = 0
  /** Null: not asked yet in this step, or not answered. */
  #asker: SocketAddr | null = null
  #begun = false
  #reachedAt = 0
  #unable = false
  /** The present step's silence, as long as it may have been. */
  #silenceMs = 0
  #heldMs = 0
  #report: Lifetime | null = null

  constructor(options: Options) {
    this.#options = options
    for (let step = 0; step < STEPS_MS.length; step++) this.#ask(`bind${step}`, step, options.now)
  }

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

  /** One whole datagram that arrived at `socket`. Strays and forgeries are passed over. */
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

  /** Null: an error. */
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
    // The control was asked before it, so it has been answered: its silence would have ended all.
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

  /** The step's socket was not reached, and has asked again. */
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

  // ------------------------------------------------------------------------------------------------------------ the steps

  /** Of the step that comes next; Infinity: it has begun, or its mapping is not made yet. */
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
