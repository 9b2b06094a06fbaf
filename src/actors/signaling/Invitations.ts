/** Invitations that no data plane has answered yet: one that is just starting hears of them when it subscribes. Times: ms. */
import type { SessionId, SignalingEvent } from "../RelaySignalingRpcs.ts"

/** An invitation is worth answering for so long; the relay asks another connector then. */
export const INVITE_LIFE_MS = 2_500
/** Past this the oldest is forgotten, and the relay hears no answer to it. */
export const MAX_INVITES = 256

export type Invite = SignalingEvent & { readonly _tag: "Invite" }

export class Invitations {
  /** Oldest first. */
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

  /** Those that are still worth an answer. */
  waiting(now: number): ReadonlyArray<Invite> {
    for (const [session, { at }] of this.#waiting) if (now - at >= INVITE_LIFE_MS) this.#waiting.delete(session)
    return Array.from(this.#waiting.values(), ({ invite }) => invite)
  }
}
