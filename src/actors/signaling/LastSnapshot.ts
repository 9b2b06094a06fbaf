/** Keeps the last snapshot with later changes applied, for actors that subscribe later. */
import type { SignalingEvent } from "./RelaySignalingRpcs.ts"

type Snapshot = Extract<SignalingEvent, { readonly _tag: "Snapshot" }>

/** The last snapshot, with the changes that came after it. */
export class LastSnapshot {
  #last: Snapshot | null = null

  onEvent(event: SignalingEvent): void {
    if (event._tag === "Snapshot") this.#last = event
    if (this.#last === null) return
    if (event._tag === "CredentialRenewed") this.#last = { ...this.#last, credential: event.credential }
    if (event._tag === "RelaysChanged") this.#last = { ...this.#last, relays: event.relays }
  }

  /**
   * Returns the snapshot, or `null` before the first. Its `serverTime` is the time of its arrival;
   * `TimeLearned` gives the present time.
   */
  read(): Snapshot | null {
    return this.#last
  }
}
