/** What the relay has said of itself, for actors that begin to listen later: the last snapshot with what has changed since. */
import type { SignalingEvent } from "../RelaySignalingRpcs.ts"

type Snapshot = Extract<SignalingEvent, { readonly _tag: "Snapshot" }>

export class LastSnapshot {
  #last: Snapshot | null = null
  /** When it came, epoch ms by our own clock. */
  #at = 0

  onEvent(event: SignalingEvent, now: number): void {
    if (event._tag === "Snapshot") {
      this.#last = event
      this.#at = now
    }
    if (this.#last === null) return
    if (event._tag === "CredentialRenewed") this.#last = { ...this.#last, credential: event.credential }
    if (event._tag === "RelaysChanged") this.#last = { ...this.#last, relays: event.relays }
  }

  /** By the relay's clock of now: whoever hears it sets its own by that. Null: nothing was said yet. */
  read(now: number): Snapshot | null {
    if (this.#last === null) return null
    return { ...this.#last, serverTime: this.#last.serverTime + Math.floor((now - this.#at) / 1000) }
  }
}
