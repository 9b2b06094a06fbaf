/**
 * Tells the prober about this node's sessions: path events, and a snapshot when it subscribes. With
 * relays only, the prober learns nothing that would make it probe.
 */
import { type PathRef, RELAY } from "../../../protocol/path/PathRef.ts"
import type { FlowSession, NodeContext } from "../../../transport/plane/FlowSession.ts"
import type { PathEvent } from "../../path/PathProberRpcs.ts"
import type { Held, HeldSessions } from "./HeldSessions.ts"

/**
 * How long after its last flow a session still counts as active for prober and status, because
 * another flow may follow. Each second of it costs ten packets in each direction, and as many at
 * the relay. A direct path is sought for longer (`PathMachine.SEEK_MS`).
 */
const ACTIVE_AFTER_FLOW_MS = 3_000

/** Options of {@link make}. */
export interface Options {
  readonly held: HeldSessions
  readonly node: NodeContext
  /** Called with each event that the prober may learn. */
  readonly publish: (event: PathEvent) => void
}

/** Makes the feed of one node. */
export const make = ({ held, node, publish: tell }: Options) => {
  /** Whether the prober may learn of this event. With relays only, it must not probe. */
  const isPublic = ({ _tag }: PathEvent) => node.router.direct || (_tag !== "PeerCandidates" && _tag !== "PeerOpened")
  const publish = (event: PathEvent) => {
    if (isPublic(event)) tell(event)
  }
  /** Whether the session is used, or was until just now. */
  const isActive = (session: FlowSession) => session.flows > 0 || node.now() - session.lastFlowAt < ACTIVE_AFTER_FLOW_MS

  /** Publishes that a session is used or no longer used, if that has changed. */
  const onActivity = (it: Held) => {
    const { session } = it
    const active = isActive(session)
    if (active === it.active || !session.peer.up) return
    it.active = active
    publish({ _tag: "Activity", session: session.id, active })
  }
  /** Publishes a session that has come up. */
  const onUp = (it: Held) => publish(upOf(it, it.session.path))
  const upOf = ({ active, session }: Held, path: PathRef): PathEvent => {
    const { peer: { peerName: peer, role } } = session
    return { _tag: "SessionUp", session: session.id, role, peer, path, active }
  }
  const ofSession = (it: Held): ReadonlyArray<PathEvent> => {
    const { candidates, session } = it
    const { path, peer: { moving, role } } = session
    // A client that uses only relays is about to leave a direct path.
    const chosen = node.router.direct || role === "connector" || path.kind === "relay" ? path : RELAY
    const traffic: PathEvent = { _tag: "Traffic", session: session.id, moving }
    return [upOf(it, chosen), traffic, ...(candidates === null ? [] : [candidates])].filter(isPublic)
  }
  /** Lists the live sessions and their peers' candidates, for a prober that subscribes. */
  const snapshot = (): ReadonlyArray<PathEvent> =>
    held.all().filter(({ session }) => session.peer.up).flatMap(ofSession)

  /**
   * Allows direct paths, or closes them. When they are closed, a client moves to the home relay,
   * and a connector asks its clients to move. The prober begins with each session again, so it
   * offers this host's addresses again.
   */
  const setDirect = (allowed: boolean) => {
    if (node.router.direct === allowed) return
    for (const it of held) {
      it.why = allowed ? it.selected : "relay_only"
      if (allowed || it.session.path.kind !== "direct") continue
      const { peer } = it.session
      if (node.role === "connector") peer.sendOnAllPaths({ _tag: "Switch", reason: "path_failed" })
      else {
        it.selected = "relay_only"
        peer.select(RELAY)
      }
    }
    node.router.direct = allowed
    for (const it of held) {
      if (!it.session.peer.up) continue
      publish({ _tag: "SessionDown", session: it.session.id })
      for (const event of ofSession(it)) publish(event)
    }
  }

  return { isActive, onActivity, onUp, publish, setDirect, snapshot } as const
}

/** A feed of one node's sessions. */
export type PathFeed = ReturnType<typeof make>
