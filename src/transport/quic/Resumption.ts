/**
 * What a session resumes from: the client's TLS sessions, the connector's ticket keys. Both live in memory only and die with the
 * thread. A first flight is tied to the session that it was made for by its connection id, which TLS covers; a connector begins
 * each session once. So what was recorded opens nothing, neither again nor elsewhere (docs/decisions/0013-resumption.md).
 */
import { createHash, randomBytes } from "node:crypto"
import { LIFETIMES } from "../../protocol/Lifetimes.ts"

export interface Resumption {
  /** `connectionIdOf` the session. A connector takes no handshake that begins with another one. */
  readonly clientId: Uint8Array
  /** Client: a TLS session with this very connector; its first flight carries early data. Null: none is at hand. */
  readonly savedSession: Uint8Array | null
  /** Connector: seals and opens this client's tickets. Null: gives none that allow early data, and takes none. */
  readonly ticketKey: Uint8Array | null
}

const CONNECTION_ID_BYTES = 16
const TICKET_KEY_BYTES = 48
/** Outlasts a night. Whoever took a key out of the connector's memory could read the early data of this time, not more. */
export const KEY_LIFE_MS = LIFETIMES.resumption * 1000
/** Connectors whose TLS sessions a client keeps; the one kept longest goes first. */
export const MAX_SAVED = 64
/** Clients that a connector remembers. While there are as many, further ones make the whole handshake. */
export const MAX_CLIENTS = 1024
/** Sessions of one client in the life of a key; with more the key is thrown away before its time. */
export const MAX_SESSIONS = 256

/** The connection id that the client of this session begins with: the two ends know it, and no two sessions share one. */
export const connectionIdOf = (session: string): Uint8Array =>
  createHash("sha256").update("sallyport session ").update(session).digest().subarray(0, CONNECTION_ID_BYTES)

/** Client: the last TLS session with each connector, by the connector's key. */
export class SavedSessions {
  readonly #saved = new Map<string, { readonly session: Uint8Array; readonly at: number }>()

  keep(connector: string, session: Uint8Array, now: number): void {
    this.#saved.delete(connector) // the last one is the latest
    this.#saved.set(connector, { session, at: now })
    const [oldest] = this.#saved.keys()
    if (this.#saved.size > MAX_SAVED && oldest !== undefined) this.#saved.delete(oldest)
  }

  /** Each is used once: two sessions that resume from the same one could be told to be the same client's. */
  take(connector: string, now: number): Uint8Array | null {
    const saved = this.#saved.get(connector)
    this.#saved.delete(connector)
    return saved === undefined || now - saved.at >= KEY_LIFE_MS ? null : saved.session
  }
}

export type Claim =
  /** The session may begin; with a null key, without early data. */
  | { readonly _tag: "New"; readonly ticketKey: Uint8Array | null }
  /** It has begun before, and must not again. */
  | { readonly _tag: "Spent" }

interface Client {
  key: Uint8Array | null
  madeAt: number
  /** Begun since the key was made, and in the life of the key before it. */
  sessions: Set<string>
  before: ReadonlySet<string>
}

/**
 * Connector: a random key for each client's tickets, and which sessions began while it was good. Early data that a key can open
 * belongs to a session of these, so nothing is ever forgotten before the key that makes it matter; when full, the key goes.
 */
export class TicketKeys {
  readonly #clients = new Map<string, Client>()

  claim(client: string, session: string, now: number): Claim {
    const it = this.#of(client, now)
    if (it === null) return withoutKey
    if (it.sessions.has(session) || it.before.has(session)) return { _tag: "Spent" }
    if (it.sessions.size >= MAX_SESSIONS) it.key = null
    if (it.key === null) return withoutKey
    it.sessions.add(session)
    return { _tag: "New", ticketKey: it.key }
  }

  #of(key: string, now: number): Client | null {
    const known = this.#clients.get(key)
    if (known !== undefined) {
      if (now - known.madeAt >= KEY_LIFE_MS) {
        Object.assign(known, {
          key: randomBytes(TICKET_KEY_BYTES),
          madeAt: now,
          sessions: new Set(),
          before: known.sessions
        })
      }
      return known
    }
    if (this.#clients.size >= MAX_CLIENTS) this.#forgetOld(now)
    if (this.#clients.size >= MAX_CLIENTS) return null
    const fresh = {
      key: randomBytes(TICKET_KEY_BYTES),
      madeAt: now,
      sessions: new Set<string>(),
      before: new Set<string>()
    }
    this.#clients.set(key, fresh)
    return fresh
  }

  /** Those whose last session under their key began at least the life of a key ago. */
  #forgetOld(now: number): void {
    for (const [key, { madeAt }] of this.#clients) {
      if (now - madeAt >= 2 * KEY_LIFE_MS) this.#clients.delete(key)
    }
  }
}

const withoutKey: Claim = { _tag: "New", ticketKey: null }
