/**
 * A node's side of one leg to a relay: it asks to be bound, stays bound, and opens sessions there.
 * Each input returns what to do; nothing is due before `wakeAt`. Over UDP the node proves itself by
 * cookie and signature. Over a link the carrier has done so, and the relay's first message is
 * `Bound`. Times are in ms, monotonic.
 *
 * A bound leg over UDP carries packets of the size that QUIC needs, in both directions, because the
 * cookie is requested by a padded frame and answered by one. If only small frames are answered, the
 * leg is given up as `too_small`.
 */
import type { SocketAddr } from "../bytes/SocketAddr.ts"
import type { LegKind } from "../path/PathKind.ts"
import type { Signed } from "../trust/Signed.ts"
import { type Asked, type Message, PROOF_BYTES, type Refusal } from "./RelayWire.ts"

/** First gap between sends of one request; each later gap is twice the one before it. */
export const FIRST_GAP_MS = 100
/** Longest gap between sends of one request. */
export const MAX_GAP_MS = 2000
/**
 * Time without an answer after which UDP is blocked or the relay is gone (sends at 0, 100, 300 and
 * 700 ms).
 */
export const UNANSWERED_MS = 1000
/**
 * How often UDP is tried while it seems blocked. The first gaps are short, because most blocks are
 * short.
 */
export const PROBE_GAPS_MS = [1000, 2000, 5000, 10_000, 20_000, 30_000] as const
/**
 * How long UDP is probed at short, random intervals after the leg to the relay fell silent while
 * sessions are open. Probably the relay restarts, and the sessions wait for it. {@link
 * PROBE_GAPS_MS} applies after that.
 */
export const HURRY_MS = 60_000
/** Gap between the two sends of one probe during {@link HURRY_MS}. */
export const HURRY_SEND_GAP_MS = 500
/**
 * Longest gap between the end of a probe and the next one during {@link HURRY_MS}. The gap is
 * random, at least half of this, so that the nodes of a relay that restarts do not ask at the same
 * moment.
 */
export const HURRY_GAP_MS = 400
/**
 * How long a proof of the leg's size is valid while a session is open. The next keepalive after
 * that is padded.
 */
export const PROVE_MS = 30_000
/**
 * Number of sends of one request after which a small request goes beside each padded one, to learn
 * whether only the size is the problem.
 */
const SMALL_FROM_SEND = 2
/**
 * Gap between keepalives while it is not known how long mappings last here. The oldest NATs drop
 * one after 30 s.
 */
export const KEEPALIVE_MS = 20_000
/** Wait after a first refusal that may pass. It doubles up to {@link MAX_REFUSED_GAP_MS}. */
export const REFUSED_GAP_MS = 1000
/** Longest wait after a refusal. */
export const MAX_REFUSED_GAP_MS = 30_000
/**
 * Time within which several `Rebind` notices start only one new handshake. It is short, because a
 * NAT that reboots may map twice in a row, and a flow waits meanwhile.
 */
export const REBIND_GAP_MS = 250

/**
 * Reason why UDP to the relay cannot be used. `unanswered`: nothing comes back. `too_small`: the
 * relay answers small packets only, so the leg cannot carry QUIC.
 */
export type BlockedReason = "unanswered" | "too_small"
/** Reason why a bound leg was lost. */
export type LostReason = BlockedReason | "expired" | "network_changed" | Refusal

/** An action that the binding wants, or a change that it reports. */
export type Output =
  /** Send a message. `padTo` is the least length of the frame, in bytes. */
  | { readonly _tag: "Send"; readonly message: Message; readonly padTo?: number }
  /** Sign `RelayWire.bindText` with the node key, and send `Bind` with the credential. */
  | { readonly _tag: "SendBind"; readonly nonce: Uint8Array; readonly cookie: Uint8Array }
  /**
   * The leg is bound. Reported at first, when the mapped address or the relay's own state has
   * changed, and after a change of the network.
   */
  | { readonly _tag: "Bound"; readonly mapped: SocketAddr | null }
  | { readonly _tag: "Lost"; readonly reason: LostReason }
  /** UDP is blocked. Use a link to the relay instead; UDP is tried again automatically. */
  | { readonly _tag: "UdpBlocked"; readonly reason: BlockedReason }
  /** UDP was tried again while it was blocked, without success. */
  | { readonly _tag: "StillBlocked"; readonly reason: BlockedReason }
  /** The credential is missing, expired or refused. Get one and call `onCredential`. */
  | { readonly _tag: "NeedCredential" }
  /**
   * A session is open at the relay. If `peerLeg` is `null`, frames go nowhere until a `PeerLeg`
   * says otherwise.
   */
  | { readonly _tag: "Opened"; readonly session: string; readonly peerLeg: LegKind | null }
  | { readonly _tag: "PeerLeg"; readonly session: string; readonly peerLeg: LegKind | null }
  /** The relay refused the ticket, and it was dropped. Get another one. */
  | { readonly _tag: "TicketRefused"; readonly session: string; readonly reason: Refusal }
  | { readonly _tag: "RateLimited"; readonly retryAfterMs: number }

/**
 * Phase of the binding. `udp_blocked`: UDP gets no answer. `refused`: the relay refused to bind.
 */
export type Phase = "idle" | "binding" | "bound" | "udp_blocked" | "refused"

/** One request that is repeated until it is answered. */
type Asking = {
  nonce: Uint8Array
  /** `null` while the cookie itself is requested. */
  cookie: Uint8Array | null
  /** Nonce of the small requests for a cookie, which go beside the padded ones. */
  readonly smallNonce: Uint8Array
  /** Whether a small request was answered. */
  smallAnswered: boolean
  sends: number
  readonly since: number
  nextAt: number
}
type Live = {
  readonly mark: Uint8Array
  readonly mapped: SocketAddr | null
  /**
   * When the binding is refreshed. `Infinity` while a refresh is under way, or waits for a
   * credential or for the end of a refusal.
   */
  refreshAt: number
  readonly expiresAt: number
}
type Session = {
  readonly tag: number
  ticket: Signed
  nonce: Uint8Array
  sends: number
  /** When `Open` is sent again. `Infinity` if the session is open. */
  nextAt: number
}

/** Options of {@link RelayBinding}. */
export interface Options {
  readonly carrier: "udp" | "link"
  /** Returns 8 unpredictable bytes, which show that an answer is not forged. */
  readonly newNonce: () => Uint8Array
}

/** One leg of a node to a relay. */
export class RelayBinding {
  readonly #options: Options
  readonly #sessions = new Map<string, Session>()
  #hasCredential = false
  #asking: Asking | null = null
  #live: Live | null = null
  #ping: { nonce: Uint8Array; sends: number; nextAt: number; since: number; padTo: number } | null = null
  /** When the leg's size was last proved. */
  #provedAt = -Infinity
  #pingAt = Infinity
  #keepaliveMs = KEEPALIVE_MS
  /** When UDP is tried again while it is blocked, or the relay is asked again after a refusal. */
  #retryAt = Infinity
  #blocked = false
  /** Time at which the hurry for a lost leg ends. */
  #hurryUntil = -Infinity
  #probes = 0
  #refusals = 0
  #rebindAt = -Infinity
  /**
   * Whether the network changed since the last answer. If so, the next answer is reported even if
   * it says the same.
   */
  #changed = false

  constructor(options: Options) {
    this.#options = options
  }

  /** Present phase of the binding. */
  get phase(): Phase {
    if (this.#live !== null) return "bound"
    if (this.#blocked) return "udp_blocked"
    return this.#asking !== null ? "binding" : this.#retryAt < Infinity ? "refused" : "idle"
  }

  /** Address at which the relay sees this node. `null` while not bound, and over a link. */
  get mapped(): SocketAddr | null {
    return this.#live?.mapped ?? null
  }

  /** When `onTick` is due. `Infinity` if only an input can change anything. */
  get wakeAt(): number {
    let at = this.#retryAt
    if (this.#asking !== null) at = Math.min(at, this.#asking.nextAt, this.#deadline())
    if (this.#live === null) return at
    at = Math.min(at, this.#live.refreshAt, this.#live.expiresAt, this.#ping?.nextAt ?? this.#pingAt)
    for (const session of this.#sessions.values()) at = Math.min(at, session.nextAt)
    return at
  }

  /**
   * Notes whether the node has a credential to bind with; it may be a newer one. A link needs none.
   */
  onCredential(has: boolean, now: number): ReadonlyArray<Output> {
    this.#hasCredential = has
    if (!has || this.#options.carrier === "link" || this.#asking !== null) return []
    if (this.#live !== null && this.#live.refreshAt < Infinity) return []
    this.#refusals = 0
    return this.#ask(now)
  }

  /**
   * Handles a change of this machine's addresses or routes. The relay may see another address now,
   * or UDP may work again.
   */
  onNetworkChanged(now: number): ReadonlyArray<Output> {
    if (this.#options.carrier === "link") return this.#live === null ? [] : this.#sendPing(now)
    this.#blocked = false
    this.#probes = 0
    this.#changed = true
    return this.#hasCredential ? this.#ask(now) : []
  }

  /**
   * Sets the gap between keepalives that the NATs before this node need. Has no effect over a link,
   * where there is no UDP mapping to keep.
   */
  onKeepalive(gapMs: number, now: number): void {
    if (this.#options.carrier === "link") return
    this.#keepaliveMs = gapMs
    if (this.#live !== null && this.#ping === null) this.#pingAt = Math.min(this.#pingAt, now + gapMs)
  }

  /**
   * Notes that something other than a control message came from the relay by this leg. No ping is
   * needed for a while then.
   */
  onTraffic(now: number): void {
    if (this.#live !== null && this.#ping === null) this.#pingAt = now + this.#keepaliveMs
  }

  /** Handles the end of the link. */
  onLinkClosed(): ReadonlyArray<Output> {
    return this.#lose("unanswered")
  }

  /**
   * Takes a session's ticket and opens the session at the relay. `tag` is the tag of this node's
   * frames. A newer ticket for an open session prolongs it.
   */
  onTicket(session: string, tag: number, ticket: Signed, now: number): ReadonlyArray<Output> {
    const added: Session = { tag, ticket, nonce: this.#options.newNonce(), sends: 0, nextAt: now }
    this.#sessions.set(session, added)
    return this.#live === null ? [] : [this.#sendOpen(added, now)]
  }

  /** Forgets a session's ticket and closes the session at the relay. */
  onTicketRemoved(session: string): ReadonlyArray<Output> {
    const known = this.#sessions.get(session)
    if (known === undefined) return []
    this.#sessions.delete(session)
    return this.#live === null ? [] : [{ _tag: "Send", message: { _tag: "Close", tag: known.tag } }]
  }

  /**
   * Does what is due. It may be called late or too often: an early call does nothing, and a late
   * one sends once.
   */
  onTick(now: number): ReadonlyArray<Output> {
    if (now < this.wakeAt) return []
    const out: Array<Output> = []
    if (this.#live !== null && now >= this.#live.expiresAt) out.push(...this.#lose("expired"))
    if (this.#asking !== null) out.push(...this.#onAskTick(this.#asking, now))
    else if (now >= this.#retryAt || (this.#live !== null && now >= this.#live.refreshAt)) out.push(...this.#ask(now))
    if (this.#live === null) return out
    out.push(...this.#onPingTick(now))
    for (const session of this.#sessions.values()) if (now >= session.nextAt) out.push(this.#sendOpen(session, now))
    return out
  }

  /**
   * Handles a message that came from the relay's own address or by the link. An answer to a request
   * that this node did not make is ignored.
   */
  onMessage(message: Message, now: number): ReadonlyArray<Output> {
    switch (message._tag) {
      case "Cookie":
        return this.#onCookie(message.nonce, message.cookie, now)
      case "Bound":
        return this.#onBound(message, now)
      case "Opened":
        return this.#onOpened(message, now)
      case "Pong":
        if (this.#ping === null || !same(message.echo, this.#ping.nonce)) return []
        if (this.#ping.padTo > 0) this.#provedAt = now
        this.#ping = null
        this.#pingAt = now + this.#keepaliveMs
        return []
      case "Rebind":
        return this.#onRebind(message.echo, now)
      case "Refused":
        return this.#onRefused(message, now)
      case "RateLimited":
        return this.#isOurs(message.mark) ? [{ _tag: "RateLimited", retryAfterMs: message.retryAfterMs }] : []
      case "Leg": {
        const session = this.#isOurs(message.mark) ? this.#sessionOfTag(message.tag) : undefined
        return session === undefined ? [] : [{ _tag: "PeerLeg", session, peerLeg: message.peerLeg }]
      }
      case "BindRequest":
      case "Bind":
      case "Open":
      case "Ping":
      case "Close":
        return [] // only nodes send these
    }
  }

  // --- Handshake

  /** Starts a handshake, or restarts the one that is under way. */
  #ask(now: number): ReadonlyArray<Output> {
    this.#retryAt = Infinity
    if (this.#live !== null) this.#live.refreshAt = Infinity
    if (this.#options.carrier === "link") return []
    if (!this.#hasCredential) return [{ _tag: "NeedCredential" }]
    const nonce = this.#options.newNonce()
    const smallNonce = this.#options.newNonce()
    this.#asking = { nonce, cookie: null, smallNonce, smallAnswered: false, sends: 0, since: now, nextAt: now }
    return this.#sendAsking(this.#asking, now)
  }

  #deadline(): number {
    return this.#asking === null ? Infinity : this.#asking.since + UNANSWERED_MS
  }

  #onAskTick(asking: Asking, now: number): ReadonlyArray<Output> {
    if (now >= this.#deadline()) {
      this.#asking = null
      return this.#unanswered(asking.smallAnswered ? "too_small" : "unanswered", now)
    }
    return now >= asking.nextAt ? this.#sendAsking(asking, now) : []
  }

  #sendAsking(asking: Asking, now: number): ReadonlyArray<Output> {
    const isHurried = this.#isHurried(now)
    // While UDP is blocked, each probe is sent once, or twice in a hurry.
    const isProbe = this.#blocked && asking.cookie === null
    asking.nextAt = !isProbe ? now + gap(asking.sends) : isHurried ? now + HURRY_SEND_GAP_MS : Infinity
    const withSmall = (this.#blocked && !isHurried) || asking.sends >= SMALL_FROM_SEND
    asking.sends++
    const { cookie, nonce, smallNonce } = asking
    if (cookie !== null) return [{ _tag: "SendBind", nonce, cookie }]
    const padded: Output = { _tag: "Send", message: { _tag: "BindRequest", nonce }, padTo: PROOF_BYTES }
    return withSmall ? [padded, { _tag: "Send", message: { _tag: "BindRequest", nonce: smallNonce } }] : [padded]
  }

  #unanswered(reason: BlockedReason, now: number): ReadonlyArray<Output> {
    const told = this.#blocked
    this.#blocked = true
    if (this.#live !== null && reason === "unanswered") this.#hurryUntil = now + HURRY_MS
    this.#retryAt = now + (this.#isHurried(now) ? this.#hurryGap() : this.#probeGap())
    return [...this.#lose(reason), { _tag: told ? "StillBlocked" : "UdpBlocked", reason }]
  }

  #isHurried(now: number): boolean {
    return now < this.#hurryUntil && this.#sessions.size > 0
  }

  #hurryGap(): number {
    const chance = this.#options.newNonce().at(-1) ?? 0
    return HURRY_GAP_MS / 2 * (1 + chance / 256)
  }

  #probeGap(): number {
    return PROBE_GAPS_MS[Math.min(this.#probes++, PROBE_GAPS_MS.length - 1)]!
  }

  #onCookie(nonce: Uint8Array, cookie: Uint8Array, now: number): ReadonlyArray<Output> {
    const asking = this.#asking
    if (asking === null || asking.cookie !== null) return []
    if (same(nonce, asking.smallNonce)) asking.smallAnswered = true
    if (!same(nonce, asking.nonce)) return []
    this.#provedAt = now
    this.#asking = { ...asking, nonce: this.#options.newNonce(), cookie, sends: 0, since: now, nextAt: now }
    return this.#sendAsking(this.#asking, now)
  }

  #onBound(message: Extract<Message, { _tag: "Bound" }>, now: number): ReadonlyArray<Output> {
    const overLink = this.#options.carrier === "link"
    if (!overLink && (this.#asking?.cookie == null || !same(message.nonce, this.#asking.nonce))) return []
    const before = this.#live
    const lifetimeMs = overLink ? Infinity : Math.max(1, message.lifetimeSeconds) * 1000
    const { mapped, mark } = message
    this.#live = { mark, mapped, refreshAt: now + lifetimeMs / 2, expiresAt: now + lifetimeMs }
    this.#asking = this.#ping = null
    this.#retryAt = Infinity
    this.#blocked = false
    this.#hurryUntil = -Infinity
    this.#probes = this.#refusals = 0
    this.#pingAt = now + this.#keepaliveMs
    const known = before !== null && same(before.mark, mark)
    const asBefore = known && sameAddress(before.mapped, mapped) && !this.#changed
    this.#changed = false
    if (asBefore) return []
    const out: Array<Output> = [{ _tag: "Bound", mapped }]
    if (known) return out
    for (const session of this.#sessions.values()) { // the relay does not know them yet
      session.sends = 0
      out.push(this.#sendOpen(session, now))
    }
    return out
  }

  #onRebind(echo: Uint8Array, now: number): ReadonlyArray<Output> {
    const ours = (this.#ping !== null && same(echo, this.#ping.nonce)) || this.#sessionOfEcho(echo) !== undefined
    if (!ours || this.#asking !== null || this.#live === null || now < this.#rebindAt + REBIND_GAP_MS) return []
    this.#rebindAt = now
    return this.#ask(now)
  }

  #lose(reason: LostReason): ReadonlyArray<Output> {
    this.#ping = null
    this.#pingAt = Infinity
    if (this.#live === null) return []
    this.#live = null
    return [{ _tag: "Lost", reason }]
  }

  // --- Refusals and keepalives

  #onRefused(
    message: { readonly nonce: Uint8Array; readonly asked: Asked; readonly code: Refusal },
    now: number
  ): ReadonlyArray<Output> {
    switch (message.asked) {
      case "None":
        return this.#isOurs(message.nonce) ? this.#onBindRefused(message.code, now) : []
      case "Bind":
        if (this.#asking?.cookie == null || !same(message.nonce, this.#asking.nonce)) return []
        return this.#onBindRefused(message.code, now)
      case "Open":
        return this.#onOpenRefused(message.nonce, message.code, now)
    }
  }

  /**
   * Waits before it asks again, longer each time. A binding that is still valid is kept if the
   * refusal may pass.
   */
  #onBindRefused(code: Refusal, now: number): ReadonlyArray<Output> {
    this.#asking = null
    this.#blocked = false // there was an answer, so UDP works
    const wait = Math.min(MAX_REFUSED_GAP_MS, REFUSED_GAP_MS * 2 ** Math.min(10, this.#refusals++))
    this.#retryAt = now + wait
    if (code === "busy" || code === "bad_cookie" || code === "full") return []
    const lost = this.#lose(code)
    return code === "expired" || code === "bad_credential" ? [...lost, { _tag: "NeedCredential" }] : lost
  }

  #onPingTick(now: number): ReadonlyArray<Output> {
    const ping = this.#ping
    if (ping === null) return now >= this.#pingAt ? this.#sendPing(now) : []
    if (now < ping.nextAt) return []
    if (now < ping.since + UNANSWERED_MS) {
      ping.nextAt = Math.min(now + gap(ping.sends++), ping.since + UNANSWERED_MS)
      return [{ _tag: "Send", message: { _tag: "Ping", echo: ping.nonce }, padTo: ping.padTo }]
    }
    this.#ping = null
    this.#pingAt = now + this.#keepaliveMs
    if (this.#options.carrier === "link") return this.#lose("unanswered")
    return this.#asking === null ? this.#ask(now) : []
  }

  #sendPing(now: number): ReadonlyArray<Output> {
    if (this.#ping !== null) return []
    const proves = this.#options.carrier === "udp" && this.#sessions.size > 0 && now >= this.#provedAt + PROVE_MS
    const padTo = proves ? PROOF_BYTES : 0
    this.#ping = { nonce: this.#options.newNonce(), sends: 1, since: now, nextAt: now + gap(0), padTo }
    return [{ _tag: "Send", message: { _tag: "Ping", echo: this.#ping.nonce }, padTo }]
  }

  // --- Sessions

  #sendOpen(session: Session, now: number): Output {
    session.nextAt = now + gap(session.sends++)
    return { _tag: "Send", message: { _tag: "Open", nonce: session.nonce, ticket: session.ticket } }
  }

  #onOpened(message: Extract<Message, { _tag: "Opened" }>, now: number): ReadonlyArray<Output> {
    const found = this.#sessionOfNonce(message.nonce)
    if (found === undefined || this.#live === null || found[1].nextAt === Infinity) return []
    found[1].nextAt = Infinity
    this.onTraffic(now)
    return [{ _tag: "Opened", session: found[0], peerLeg: message.peerLeg }]
  }

  #onOpenRefused(nonce: Uint8Array, code: Refusal, now: number): ReadonlyArray<Output> {
    const found = this.#sessionOfNonce(nonce)
    if (found === undefined || found[1].nextAt === Infinity) return []
    const [id, session] = found
    if (code === "busy") {
      session.nextAt = now + REFUSED_GAP_MS
      return []
    }
    if (code === "not_bound") return this.#asking === null && this.#live !== null ? this.#rebindOnce(now) : []
    this.#sessions.delete(id)
    return [{ _tag: "TicketRefused", session: id, reason: code }]
  }

  #rebindOnce(now: number): ReadonlyArray<Output> {
    if (now < this.#rebindAt + REBIND_GAP_MS) return []
    this.#rebindAt = now
    return this.#ask(now)
  }

  #isOurs(mark: Uint8Array): boolean {
    return this.#live !== null && same(mark, this.#live.mark)
  }

  #sessionOfNonce(nonce: Uint8Array): [string, Session] | undefined {
    for (const one of this.#sessions) if (same(one[1].nonce, nonce)) return one
    return undefined
  }

  #sessionOfTag(tag: number): string | undefined {
    for (const [id, session] of this.#sessions) if (session.tag === tag) return id
    return undefined
  }

  /**
   * Returns the session that an echo belongs to. For a data frame the relay echoes two zero bytes
   * and the tag.
   */
  #sessionOfEcho(echo: Uint8Array): string | undefined {
    if (echo[0] !== 0 || echo[1] !== 0) return undefined
    return this.#sessionOfTag(echo.subarray(2).reduce((tag, byte) => tag * 256 + byte, 0))
  }
}

/** Gap before the next send, after `sent` + 1 sends. */
const gap = (sent: number): number => Math.min(MAX_GAP_MS, FIRST_GAP_MS * 2 ** Math.min(10, sent))

const same = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i])

const sameAddress = (a: SocketAddr | null, b: SocketAddr | null): boolean =>
  a === b || (a !== null && b !== null && a.host === b.host && a.port === b.port)
