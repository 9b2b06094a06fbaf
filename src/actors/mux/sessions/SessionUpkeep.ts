/**
 * The periodic check of a node's sessions. A session ends when nothing permits it, when it is not
 * used, or when its peer is gone. Otherwise it is renewed in time.
 */
import { Duration, Effect } from "effect"
import type { Target } from "../../../protocol/flow/FlowWire.ts"
import * as PeerLoss from "../../../protocol/path/PeerLoss.ts"
import { LIFETIMES } from "../../../protocol/trust/Lifetimes.ts"
import type { NodeContext } from "../../../transport/plane/FlowSession.ts"
import { CloseCode } from "../../../transport/quic/QuicSession.ts"
import type { RpcsOf } from "../../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../../runtime/actor/ActorRef.ts"
import type { Signaling } from "../../signaling/SignalingRpcs.ts"
import type { Held, HeldSessions } from "./HeldSessions.ts"
import type { PathFeed } from "./PathFeed.ts"
import type { SessionRenewal } from "./SessionRenewal.ts"

/**
 * How long a session without flows is kept, so that the next flow opens at once and on a path
 * already found.
 */
const IDLE_SESSION_MS = LIFETIMES.idleSession * 1000
/**
 * How long a peer may owe an answer while flows are open before another dial finds out whether it
 * has lost the session.
 */
const REDIAL_AFTER_MS = 3_000
/** Shortest time between two dials that check the same silent session. */
const REDIAL_EVERY_MS = 10_000
/**
 * How long asking for a peer's presence may take. The next question follows after
 * `PeerLoss.ASK_EVERY_MS`.
 */
const PRESENCE_DEADLINE = Duration.millis(PeerLoss.ASK_EVERY_MS)

/** Options of {@link make}. */
export interface Options {
  readonly held: HeldSessions
  readonly node: NodeContext
  readonly feed: Pick<PathFeed, "onActivity">
  readonly renewal: Pick<SessionRenewal, "onTick">
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  /** Whether the directory is reached. */
  readonly isReached: () => boolean
  /** Dials a target, to find out whether a silent connector has lost its session. */
  readonly dial: (target: Target) => Effect.Effect<unknown, unknown>
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Makes the check. It must run once a second. */
export const make = ({ dial, feed, fork, held, isReached, node, renewal, signaling }: Options) => {
  const askPresence = (it: Held) =>
    signaling.ask((client) => client.Presence({ ticket: it.ticket }), { deadline: PRESENCE_DEADLINE }).pipe(
      Effect.map((presence) => {
        it.loss = PeerLoss.onPresence(it.loss, node.now(), presence)
      }),
      Effect.ignore // the relay cannot be asked now, so nothing is known
    )

  /** Ends a session whose connector is gone. Returns whether it did. Client only. */
  const endIfLost = (it: Held, now: number): boolean => {
    const { peer } = it.session
    const [step, loss] = PeerLoss.onTick(it.loss, now, peer.silentMs, {
      canHear: node.leg() !== null,
      isReplaced: held.isReplaced(it, now)
    })
    it.loss = loss
    if (step === "ask") fork(askPresence(it))
    if (step === "wait" || step === "ask") return false
    it.session.close(CloseCode.normal, `${peer.peerName} ${LOST[step]}`)
    return true
  }

  return Effect.sync(() => {
    const now = node.now()
    for (const it of held) {
      const { session } = it
      session.peer.tick()
      feed.onActivity(it)
      if (session.standing() !== null) {
        session.close(CloseCode.denied, isReached() ? EXPIRED : `${EXPIRED}, and the relay cannot be reached`)
      } else if (session.flows === 0 && now - session.lastFlowAt > IDLE_SESSION_MS) {
        session.close(CloseCode.normal, "idle")
      } else if (node.role === "client" && endIfLost(it, now)) {
        continue
      } else if (held.isSuperseded(it, now)) {
        session.close(CloseCode.normal, "the peer answers only in a newer session")
      } else if (
        it.target !== null && session.flows > 0 && session.peer.silentMs >= REDIAL_AFTER_MS && now >= it.redialAt
      ) {
        it.redialAt = now + REDIAL_EVERY_MS
        fork(Effect.ignore(dial(it.target)))
      } else {
        renewal.onTick(it, now)
      }
    }
  })
}

const EXPIRED = "the grant has expired"

/** Why a session with a lost connector ends, after the connector's name. */
const LOST = {
  absent: "has left the relay and does not answer",
  forgotten: "is connected to the relay, but answers nothing in this session",
  replaced: "answers nothing in this session, and another connector does"
} as const
