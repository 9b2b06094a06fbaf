/** The flows of one session at its client: how many there are, and when one last began or ended. */
import type { Target } from "../../protocol/flow/FlowWire.ts"
import * as FlowStart from "../FlowStart.ts"

/** Counts the flows of one session. A flow counts from its Open to its end. */
export class FlowCount {
  readonly #now: () => number
  #flows = 0
  #lastAt: number

  /** `now` returns milliseconds of a monotonic clock. */
  constructor(now: () => number) {
    this.#now = now
    this.#lastAt = now()
  }

  /** Number of flows that are open or being opened. */
  get flows(): number {
    return this.#flows
  }

  /** When a flow last began or ended. When the session began if none did. */
  get lastAt(): number {
    return this.#lastAt
  }

  /** Notes that the session is used without counting a flow. */
  touch(): void {
    this.#lastAt = this.#now()
  }

  /** Counts a flow that is being opened. */
  began(): void {
    this.#flows++
    this.touch()
  }

  /** Must be called once for each accepted flow when it has ended. */
  ended(): void {
    this.#flows--
    this.touch()
  }

  /**
   * Opens a flow and counts it. `done` is called once, unless the returned function cancels the
   * flow first. When an accepted flow has ended, call `ended`.
   */
  open(
    streams: FlowStart.Streams,
    { host, kind, port, traceparent }: Target & { readonly traceparent: string | null },
    done: (answer: FlowStart.Answer) => void
  ): () => void {
    this.began()
    const giveUp = FlowStart.request(streams, { kind, resource: "", host, port, traceparent }, (answer) => {
      if (answer._tag === "Rejected") this.ended()
      done(answer)
    })
    return () => {
      giveUp()
      this.ended()
    }
  }
}
