/**
 * Limits how much work one node may cause in the relay's signaling: sessions to arrange, and sealed
 * messages for its peers. A dial that is not permitted is not counted, so a node that tries all
 * ports of a resource gets an answer for each. This is plain state of the SignalingHubActor, with
 * one row for each node that asked for something since it was let in.
 */
import { TokenBucket } from "../../protocol/bytes/TokenBucket.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"

/**
 * Rate of dials. A node dials once for each connector, and again after it lost everything. A page
 * dials four times for each.
 */
const DIALS_PER_SECOND = 5
/** Dials that a node may send at once: a hundred connectors after it lost everything. */
const DIALS_BURST = 100
/**
 * Rate of sealed messages, which carry candidates and news about probes. A node sends a few at a
 * time, but one with a thousand peers sends them all at once after a move.
 */
const MESSAGES_PER_SECOND = 100
/** Sealed messages that a node may send at once: four to each of a thousand peers. */
const MESSAGES_BURST = 4000

interface Row {
  readonly dials: TokenBucket
  readonly messages: TokenBucket
}

/** Rate limits of the relay's signaling, for each node. */
export class NodeRates {
  readonly #rows = new Map<NodeKey, Row>()

  /** Counts one dial. Returns `false` if it exceeds the rate. `now` is in ms (monotonic). */
  mayDial(node: NodeKey, now: number): boolean {
    return this.#rowOf(node, now).dials.take(1, now)
  }

  /** Counts one message. Returns `false` if it exceeds the rate. `now` is in ms (monotonic). */
  mayForward(node: NodeKey, now: number): boolean {
    return this.#rowOf(node, now).messages.take(1, now)
  }

  onRemoved(node: NodeKey): void {
    this.#rows.delete(node)
  }

  #rowOf(node: NodeKey, now: number): Row {
    const known = this.#rows.get(node)
    if (known !== undefined) return known
    const row = {
      dials: new TokenBucket(DIALS_PER_SECOND, DIALS_BURST, now),
      messages: new TokenBucket(MESSAGES_PER_SECOND, MESSAGES_BURST, now)
    }
    this.#rows.set(node, row)
    return row
  }
}
