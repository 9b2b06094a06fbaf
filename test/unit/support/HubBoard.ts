/** Nodes that are connected to a hub's board, and what they hear. */
import { Effect, Mailbox } from "effect"
import * as Board from "../../../src/actors/hub/Board.ts"
import type { SignalingEvent } from "../../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { NodeRole } from "../../../src/protocol/trust/Documents.ts"
import type { NodeKey } from "../../../src/protocol/trust/NodeKey.ts"

/** Joins a node of network "office". Returns the events since the last look, and why its link was cut. */
export const connect = Effect.fnUntraced(function*(
  board: ReturnType<typeof Board.make>,
  key: NodeKey,
  role: NodeRole,
  isBrowser = false
) {
  const events = yield* Mailbox.make<SignalingEvent>({ capacity: Board.EVENTS_CAPACITY, strategy: "dropping" })
  const cuts = new Array<string>()
  board.join({
    member: { key, name: role, shown: role, role, network: role === "connector" ? "office" : null },
    isBrowser,
    since: 0,
    events,
    cut: (why) => void cuts.push(why)
  })
  return { cuts, heard: Effect.map(Effect.orDie(events.clear), (told) => [...told]) }
})
