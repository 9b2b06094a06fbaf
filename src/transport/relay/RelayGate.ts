/**
 * Limits what a relay spends on senders that have not been authenticated: cookies without state,
 * and bounded verification.
 */
import { Either } from "effect"
import * as IpBytes from "../../protocol/bytes/IpBytes.ts"
import { PrefixBuckets, TokenBucket } from "../../protocol/bytes/TokenBucket.ts"
import * as RelayWire from "../../protocol/relay/RelayWire.ts"
import * as Documents from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as Crypto from "../../services/host/Crypto.ts"

/**
 * Period of cookies. A cookie is valid for one to two periods: longer than any handshake, and too
 * short for an attacker to collect cookies.
 */
export const COOKIE_PERIOD_MS = 120_000
const MAC_BYTES = 16

/** Rate limits of a relay, per second. */
export interface Rates {
  /** Ed25519 verifications per second in total. Each takes about 0.1 ms of this thread. */
  readonly verifications: number
  /** Ed25519 verifications per second for one network prefix (/24, /56). */
  readonly verificationsPerPrefix: number
  /** Answers per second to unauthenticated senders of one prefix: cookies and rebind notices. */
  readonly answersPerPrefix: number
  /** STUN answers per second to one prefix. */
  readonly stunPerPrefix: number
}

/**
 * Default rates. A prefix may be an office behind one address, so the rates suffice for dozens of
 * nodes that start at once.
 */
export const DEFAULT_RATES: Rates = {
  verifications: 1000,
  verificationsPerPrefix: 100,
  answersPerPrefix: 100,
  stunPerPrefix: 100
}
/** Burst of each bucket, in seconds of its rate. */
const BURST_SECONDS = 2

/** Functions that verify signatures. */
export interface Verify {
  /** Whether the authority signed `message`. */
  readonly authority: (message: Uint8Array, signature: Uint8Array) => boolean
  /** Whether the node with this key signed `message`. */
  readonly node: (key: NodeKey, message: Uint8Array, signature: Uint8Array) => boolean
}

const text = new TextEncoder()

/** Decides what a relay does for a sender, and verifies what the sender presents. */
export class RelayGate {
  readonly #verify: Verify
  readonly #name: string
  readonly #all: TokenBucket
  readonly #verifications: PrefixBuckets
  readonly #answers: PrefixBuckets
  readonly #stun: PrefixBuckets
  readonly #ip = new Uint8Array(16)
  #period = -1
  #secret = Crypto.randomBytes(32)
  #secretBefore = Crypto.randomBytes(32)

  constructor(
    options: { readonly name: string; readonly verify: Verify; readonly rates: Rates; readonly now: number }
  ) {
    const { name, now, rates, verify } = options
    this.#name = name
    const buckets = (rate: number) =>
      new PrefixBuckets({
        rate,
        burst: rate * BURST_SECONDS,
        seed: new DataView(Crypto.randomBytes(4).buffer).getInt32(0),
        now
      })
    this.#verify = verify
    this.#all = new TokenBucket(rates.verifications, rates.verifications * BURST_SECONDS, now)
    this.#verifications = buckets(rates.verificationsPerPrefix)
    this.#answers = buckets(rates.answersPerPrefix)
    this.#stun = buckets(rates.stunPerPrefix)
  }

  /** Whether the rate limit allows an answer to this address. */
  mayAnswer(address: string, now: number): boolean {
    return this.#take(this.#answers, address, 1, now)
  }

  /** Whether the rate limit allows a STUN answer to this address. */
  mayAnswerStun(address: string, now: number): boolean {
    return this.#take(this.#stun, address, 1, now)
  }

  /**
   * Whether the rate limits allow `count` verifications. `address` is `null` over a link, because
   * its node is already known. The limit of the prefix comes first, so that one prefix cannot use
   * up the limit of all.
   */
  mayVerify(address: string | null, count: number, now: number): boolean {
    return (address === null || this.#take(this.#verifications, address, count, now)) && this.#all.take(count, now)
  }

  /** Creates the cookie of a 5-tuple. It is a MAC, so the relay need not store it. */
  cookieFor(address: string, port: number, socket: number, now: number): Uint8Array {
    this.#rotate(now)
    const cookie = new Uint8Array(RelayWire.COOKIE_BYTES)
    new DataView(cookie.buffer).setUint32(0, this.#period)
    cookie.set(mac(this.#secret, address, port, socket), RelayWire.COOKIE_BYTES - MAC_BYTES)
    return cookie
  }

  /** Whether the cookie was created for this 5-tuple, in this period or the previous one. */
  isCookie(cookie: Uint8Array, address: string, port: number, socket: number, now: number): boolean {
    this.#rotate(now)
    const age = this.#period - new DataView(cookie.buffer, cookie.byteOffset).getUint32(0)
    if (age !== 0 && age !== 1) return false
    const expected = mac(age === 0 ? this.#secret : this.#secretBefore, address, port, socket)
    return Crypto.equal(cookie.subarray(RelayWire.COOKIE_BYTES - MAC_BYTES), expected)
  }

  /**
   * Verifies a credential. Returns the refusal if it is not valid. It counts as one verification
   * for the rate limits. A credential that has expired is accepted for `graceSeconds` longer.
   */
  credential(signed: Signed, nowSeconds: number, graceSeconds: number): Documents.Credential | RelayWire.Refusal {
    const opened = Documents.open("credential", signed, this.#verify.authority, nowSeconds, graceSeconds)
    return Either.isRight(opened) ? opened.right : opened.left.reason === "expired" ? "expired" : "bad_credential"
  }

  /**
   * Verifies a ticket. Returns the refusal if it is not valid. It counts as one verification for
   * the rate limits. A ticket that has expired is accepted for `graceSeconds` longer.
   */
  ticket(signed: Signed, nowSeconds: number, graceSeconds: number): Documents.Ticket | RelayWire.Refusal {
    const opened = Documents.open("ticket", signed, this.#verify.authority, nowSeconds, graceSeconds)
    return Either.isRight(opened) ? opened.right : opened.left.reason === "expired" ? "expired" : "bad_ticket"
  }

  /**
   * Whether the node signed this cookie for this relay. It counts as one verification for the rate
   * limits.
   */
  signedBy(key: NodeKey, cookie: Uint8Array, signature: Uint8Array): boolean {
    return this.#verify.node(key, RelayWire.bindText(cookie, this.#name), signature)
  }

  #take(buckets: PrefixBuckets, address: string, cost: number, now: number): boolean {
    const length = IpBytes.parse(address, this.#ip)
    return length !== 0 && buckets.take(this.#ip, length, cost, now)
  }

  #rotate(now: number): void {
    const period = Math.floor(now / COOKIE_PERIOD_MS)
    if (period <= this.#period) return
    // After a gap of more than one period, the previous secret is no longer of use.
    this.#secretBefore = period === this.#period + 1 ? this.#secret : Crypto.randomBytes(32)
    this.#secret = Crypto.randomBytes(32)
    this.#period = period
  }
}

const mac = (secret: Uint8Array, address: string, port: number, socket: number): Uint8Array =>
  Crypto.hmacSha256(secret, text.encode(`${socket}|${port}|${address}`)).subarray(0, MAC_BYTES)
