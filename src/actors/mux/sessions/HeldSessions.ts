/**
 * The sessions of a node with what its actor knows about each: which one may carry a flow, which
 * peers are silent, and which sessions are dead because another one works.
 */
import type { Deferred } from "effect"
import type { Target, Verdict } from "../../../protocol/flow/FlowWire.ts"
import type { Reason } from "../../../protocol/path/PathRef.ts"
import type * as PeerLoss from "../../../protocol/path/PeerLoss.ts"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../../protocol/trust/Signed.ts"
import { SessionTable } from "../../../session/core/SessionTable.ts"
import type { FlowSession } from "../../../transport/plane/FlowSession.ts"
import type { PathEvent } from "../../path/PathProberRpcs.ts"

/** Most sessions of one node. Beyond that, invitations and dials are refused. */
const MAX_SESSIONS = 1024
/**
 * How long a peer may owe an answer before its session gets no new flows. The peer may have been
 * restarted and have lost the session.
 */
export const SILENT_MS = 1_000
/** Most silent connectors that a dial names. The relay accepts no more. */
const MAX_EXCLUDED = 16
/**
 * How long a newer session with the same peer must be up before an older, silent one counts as
 * dead.
 */
const SUPERSEDED_MS = 2_000

/** A session and what the actor knows about it. */
export interface Held {
  readonly session: FlowSession
  /** Done when the session is up. Fails when it ends before. */
  readonly up: Deferred.Deferred<FlowSession, Verdict>
  /** The signed ticket, which a renewal needs. */
  ticket: Signed
  /** When the ticket arrived, in ms (monotonic). */
  ticketAt: number
  /** Whether the session was last published as active. */
  active: boolean
  /** Earliest time of the next renewal, in ms (monotonic). */
  renewAt: number
  /** When the session came up, in ms (monotonic). `Infinity` before that. */
  upAt: number
  /** Target that the session was dialled for, or last used for. Client only. */
  target: Target | null
  /** Earliest time of the next dial that checks a silent session, in ms (monotonic). */
  redialAt: number
  /** Why the session last moved to another path. */
  selected: Reason
  /** Why packets take the present path. */
  why: string
  /**
   * The peer's newest candidate list, for a restarted prober. The peer does not send it again,
   * because its list was acknowledged.
   */
  candidates: (PathEvent & { readonly _tag: "PeerCandidates" }) | null
  wasDirect: boolean
  /** Judges whether a connector that stopped answering is gone. Client only. */
  loss: PeerLoss.State
}

/** Whether the session gets no new flows because its peer owes an answer. */
export const isSilent = ({ peer }: FlowSession): boolean => peer.silentMs >= SILENT_MS

/** The sessions of one node. */
export class HeldSessions extends SessionTable<Held> {
  constructor() {
    super(MAX_SESSIONS)
  }

  /** Finds a live session that permits the target, and notes that an answer is expected. */
  reaching(target: Target): FlowSession | undefined {
    const it = this.find(({ session }) => session.peer.up && !isSilent(session) && session.permits(target))
    if (it === undefined) return undefined
    it.target = target
    it.session.peer.expectAnswer()
    return it.session
  }

  /** Finds a session with this peer that is open, not silent, and takes new flows. */
  withPeer(key: NodeKey): Held | undefined {
    return this.find(({ session }) => {
      const { isLeaving, peer } = session
      return peer.peerKey === key && peer.quic.closed === null && !isLeaving && !isSilent(session)
    })
  }

  /** Lists the silent connectors that a dial names. */
  silentPeers(): ReadonlyArray<NodeKey> {
    const silent = this.all().flatMap(({ session }) => isSilent(session) ? [session.grant.connectorKey] : [])
    return [...new Set(silent)].slice(0, MAX_EXCLUDED)
  }

  /**
   * Whether the session is silent while a newer one with the same peer works. A restarted peer does
   * not know its old sessions and sends nothing on them. A newer session that is silent as well
   * proves nothing, because a resumed session is up before the peer has answered.
   */
  isSuperseded(it: Held, now: number): boolean {
    const { peerKey } = it.session.peer
    return isSilent(it.session) &&
      this.find((other) => other.session.peer.peerKey === peerKey && other.upAt > it.upAt && works(other, now)) !==
        undefined
  }

  /** Whether a session with another connector works and permits the target of this one. */
  isReplaced({ session, target }: Held, now: number): boolean {
    const { peerKey } = session.peer
    return target !== null &&
      this.find((other) =>
          other.session.peer.peerKey !== peerKey && works(other, now) && other.session.permits(target)
        ) !== undefined
  }
}

/** Whether a session has been up for long enough to judge others by it, and its peer answers. */
const works = ({ session, upAt }: Held, now: number) => now - upAt >= SUPERSEDED_MS && !isSilent(session)
