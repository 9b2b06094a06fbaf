/** The last snapshot with what has changed since, for actors that subscribe later. */
import type { SignalingEvent } from "../RelaySignalingRpcs.ts"

type Snapshot = Extract<SignalingEvent, { readonly _tag: "Snapshot" }>

export class LastSnapshot {
  #last: Snapshot | null = null

  onEvent(event: SignalingEvent): void {
    if (event._tag === "Snapshot") this.#last = event
    if (this.#last === null) return
    if (event._tag === "CredentialRenewed") this.#last = { ...this.#last, credential: event.credential }
    if (event._tag === "RelaysChanged") this.#last = { ...this.#last, relays: event.relays }
  }

  /** `null` before the first snapshot. Its `serverTime` is that of its arrival: `TimeLearned` tells the time. */
  read(): Snapshot | null {
    return this.#last
  }
}
