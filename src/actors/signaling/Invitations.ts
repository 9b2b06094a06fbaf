/**
 * Invitations that no data plane has answered yet. A data plane that is just starting receives them
 * when it subscribes. Times are in ms.
 */
import type { SessionId, SignalingEvent } from "./RelaySignalingRpcs.ts"

/** How long an invitation may be answered. After that, the relay asks another connector. */
export const INVITE_LIFE_MS = 2_500
/**
 * Most invitations that may wait. For one more, the oldest is dropped, and the relay gets no answer
 * to it.
 */
export const MAX_INVITES = 256

export type Invite = SignalingEvent & { readonly _tag: "Invite" }

/** Invitations that wait for an answer. */
export class Invitations {
  /** Waiting invitations, oldest first. */
  readonly #waiting = new Map<SessionId, { readonly invite: Invite; readonly at: number }>()

  add(invite: Invite, now: number): void {
    this.#waiting.delete(invite.session)
    const [oldest] = this.#waiting.keys()
    if (this.#waiting.size >= MAX_INVITES && oldest !== undefined) this.#waiting.delete(oldest)
    this.#waiting.set(invite.session, { invite, at: now })
  }

  answered(session: SessionId): void {
    this.#waiting.delete(session)
  }

  /** Returns the invitations that may still be answered. */
  waiting(now: number): ReadonlyArray<Invite> {
    for (const [session, { at }] of this.#waiting) if (now - at >= INVITE_LIFE_MS) this.#waiting.delete(session)
    return Array.from(this.#waiting.values(), ({ invite }) => invite)
  }
}
