/**
 * How much work one node may have of the relay's signaling: sessions that it wants arranged, and sealed messages for its peers. What it
 * may not dial costs it nothing here: whoever tries all ports of a resource is answered for each. Plain state of the
 * SignalingHubActor, one row for each node that asked for something since it was let in.
 */
import type { NodeKey } from "../../protocol/NodeKey.ts"
import { TokenBucket } from "../../protocol/TokenBucket.ts"

/** A node dials once for each connector, and again when it lost everything; a page four times for each. */
const DIALS_PER_SECOND = 5
const DIALS_BURST = 100
/** Candidates and probes' news, a few at a time; with a thousand peers, all at once after a move. */
const MESSAGES_PER_SECOND = 100
const MESSAGES_BURST = 4000

interface Row {
  readonly dials: TokenBucket
  readonly messages: TokenBucket
}

export class NodeRates {
  readonly #rows = new Map<NodeKey, Row>()

  /** `now`: ms of a monotonic clock. */
  mayDial(node: NodeKey, now: number): boolean {
    return this.#rowOf(node, now).dials.take(1, now)
  }

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
