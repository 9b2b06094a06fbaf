/**
 * State for resuming sessions: the client's TLS sessions and the connector's ticket keys. Both
 * exist only in memory and are lost with the thread.
 *
 * A first flight is tied to its session by the connection id, which TLS authenticates, and a
 * connector begins each session only once. A recorded flight is therefore useless, whether it is
 * replayed in the same place or elsewhere (docs/decisions/0013-resumption.md).
 */
import { createHash, randomBytes } from "node:crypto"
import { LIFETIMES } from "../../../protocol/trust/Lifetimes.ts"

/**
 * Parameters that tie a handshake to one session, and let the session resume from an earlier one.
 */
export interface Resumption {
  /**
   * Connection id of the session, from `connectionIdOf`. A connector rejects a handshake that
   * begins with another one.
   */
  readonly clientId: Uint8Array
  /**
   * TLS session that was saved with this very connector; the first flight then carries early data.
   * `null` if there is none. Client only.
   */
  readonly savedSession: Uint8Array | null
  /**
   * Key that seals and opens this client's session tickets. `null` if early data is neither offered
   * nor accepted. Connector only.
   */
  readonly ticketKey: Uint8Array | null
}

const CONNECTION_ID_BYTES = 16
const TICKET_KEY_BYTES = 48
/**
 * Lifetime of a ticket key and of a saved session, in milliseconds. It is longer than a night. A
 * stolen key exposes only the early data of this time.
 */
export const KEY_LIFE_MS = LIFETIMES.resumption * 1000
/** Most connectors whose TLS sessions a client keeps. When full, the oldest one is dropped. */
export const MAX_SAVED = 64
/**
 * Most clients that a connector keeps keys for. When full, further clients make a full handshake.
 */
export const MAX_CLIENTS = 1024
/**
 * Most sessions of one client in the lifetime of a key. If there are more, the key is dropped
 * early.
 */
export const MAX_SESSIONS = 256

/**
 * Returns the connection id with which the client of this session begins. Both ends can compute it,
 * and no two sessions share one.
 */
export const connectionIdOf = (session: string): Uint8Array =>
  createHash("sha256").update("sallyport session ").update(session).digest().subarray(0, CONNECTION_ID_BYTES)

/** The last TLS session with each connector, by the connector's key. Client only. */
export class SavedSessions {
  readonly #saved = new Map<string, { readonly session: Uint8Array; readonly at: number }>()

  keep(connector: string, session: Uint8Array, now: number): void {
    this.#saved.delete(connector) // moves it to the end, so that the first entry is the oldest
    this.#saved.set(connector, { session, at: now })
    const [oldest] = this.#saved.keys()
    if (this.#saved.size > MAX_SAVED && oldest !== undefined) this.#saved.delete(oldest)
  }

  /**
   * Takes the session saved for a connector. `null` if there is none or it has expired. Each saved
   * session is used only once: an observer could link two sessions that resume from the same one to
   * the same client.
   */
  take(connector: string, now: number): Uint8Array | null {
    const saved = this.#saved.get(connector)
    this.#saved.delete(connector)
    return saved === undefined || now - saved.at >= KEY_LIFE_MS ? null : saved.session
  }
}

/** Decision on whether a session may begin. */
export type Claim =
  /** The session may begin. With a `null` key it does so without early data. */
  | { readonly _tag: "New"; readonly ticketKey: Uint8Array | null }
  /** The session has begun before and must not begin again. */
  | { readonly _tag: "Spent" }

interface Client {
  key: Uint8Array | null
  madeAt: number
  /** Sessions that began since the key was made. */
  sessions: Set<string>
  /** Sessions that began in the lifetime of the previous key. */
  before: ReadonlySet<string>
}

/**
 * Session resumption on a connector: a random ticket key for each client, and the sessions that
 * began while the key was valid. Early data that a key can open belongs to one of these sessions,
 * so a session is never forgotten before its key. If a client has too many sessions, its key is
 * dropped, and its next sessions have no early data.
 */
export class TicketKeys {
  readonly #clients = new Map<string, Client>()

  /**
   * Begins a session of `client`, or reports that it has begun before. `now` is in milliseconds,
   * monotonic.
   */
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

  /** Drops clients whose key was made at least two key lifetimes ago. */
  #forgetOld(now: number): void {
    for (const [key, { madeAt }] of this.#clients) {
      if (now - madeAt >= 2 * KEY_LIFE_MS) this.#clients.delete(key)
    }
  }
}

const withoutKey: Claim = { _tag: "New", ticketKey: null }
