/**
 * Callbacks of a node's sessions. They end in events for the prober, in metrics, in traces and in
 * logs.
 */
import { Effect } from "effect"
import * as PathKind from "../../../protocol/path/PathKind.ts"
import type { PathRef, Reason } from "../../../protocol/path/PathRef.ts"
import type { Asked, FlowWatch } from "../../../transport/plane/ConnectorFlows.ts"
import type { FlowSession, FlowSessionEvents, NodeContext } from "../../../transport/plane/FlowSession.ts"
import type { SessionId } from "../../signaling/RelaySignalingRpcs.ts"
import * as FlowTrace from "../FlowTrace.ts"
import type { MuxMetrics } from "../MuxMetrics.ts"
import type { Refused } from "../Refusals.ts"
import type { Held, HeldSessions } from "./HeldSessions.ts"
import type { PathFeed } from "./PathFeed.ts"

/** Options of {@link make}. */
export interface Options extends Pick<FlowSessionEvents, "onUp" | "onDown"> {
  readonly held: HeldSessions
  readonly node: NodeContext
  readonly feed: PathFeed
  readonly metrics: MuxMetrics
  readonly traces: FlowTrace.FlowTraces
  /** Called with each WebRTC signal of the peer. */
  readonly onIce: (session: SessionId, signal: Uint8Array) => void
  /** Called with each flow that was not opened. Connector only. */
  readonly onRefused: (refused: Refused) => void
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Makes the callbacks of one node's sessions. */
export const make = (options: Options) => {
  const { feed: { publish }, fork, held, metrics, node, onDown, onIce, onRefused, onUp, traces } = options
  const kindOf = ({ path, peerLeg }: FlowSession) => PathKind.of(path, node.leg(), peerLeg)
  const routeOf = (id: SessionId): FlowTrace.Route | null => {
    const it = held.get(id)
    return it === undefined ? null : { kind: kindOf(it.session), why: it.why }
  }
  const onMoved = (it: Held, path: PathRef) => {
    const kind = PathKind.of(path, node.leg(), it.session.peerLeg)
    metrics.onSwitch(kind, it.selected)
    traces.onSwitch(it.session.id, { kind, why: it.selected })
    if (!PathKind.isDirect(kind) || it.wasDirect) return
    it.wasDirect = true
    metrics.onFirstDirect((node.now() - it.upAt) / 1000)
  }
  const serve = (id: SessionId, asked: Asked): FlowWatch =>
    FlowTrace.serve(traces, id, routeOf(id), asked, metrics.resources, (verdict) => {
      metrics.onFlow(verdict.code, null)
      const { host, port } = asked
      if (verdict.code !== "accepted") {
        return onRefused({ host, port, peer: held.get(id)?.session.peer.peerName ?? null, verdict })
      }
      fork(Effect.logDebug("flow").pipe(Effect.annotateLogs({ session: id, host, port, verdict: verdict.code })))
    })
  const eventsOf = (id: SessionId): FlowSessionEvents => ({
    onUp,
    onDown,
    onFlow: (asked) => serve(id, asked),
    onCandidates: (seq, list, mapping) => {
      const event = { _tag: "PeerCandidates" as const, session: id, seq, list, mapping }
      const it = held.get(id)
      if (it !== undefined && seq >= (it.candidates?.seq ?? 0)) it.candidates = event
      publish(event)
    },
    onOpened: (opened) => publish({ _tag: "PeerOpened", session: id, opened }),
    onCandidatesAck: (seq) => publish({ _tag: "CandidatesAcked", session: id, seq }),
    onPing: (path) => publish({ _tag: "PingSeen", session: id, path }),
    onPong: (path, txId, rttMs, observed) => {
      metrics.onPong(PathKind.of(path, node.leg(), held.get(id)?.session.peerLeg ?? null), rttMs)
      publish({ _tag: "Pong", session: id, path, txId, rttMs, observed })
    },
    onIce: (signal) => onIce(id, signal),
    onHeard: (path) => publish({ _tag: "Heard", session: id, path }),
    onTraffic: (moving) => publish({ _tag: "Traffic", session: id, moving }),
    onSwitchRequest: (reason) => publish({ _tag: "SwitchRequested", session: id, reason }),
    onPath: (path) => {
      const it = held.get(id)
      if (it !== undefined) onMoved(it, path)
      if (node.role === "connector") publish({ _tag: "PeerSelected", session: id, path })
    }
  })

  /** Records why the next move of this session happens. Client only. */
  const onSelected = (id: SessionId, reason: Reason) => {
    const it = held.get(id)
    if (it !== undefined) it.selected = it.why = reason
  }
  /** Records why this session's path is kept. */
  const onKept = (id: SessionId, why: Reason) => {
    const it = held.get(id)
    if (it === undefined || !node.router.direct) return
    it.why = why
    traces.onKept(id, { kind: kindOf(it.session), why })
  }
  return { eventsOf, kindOf, onKept, onSelected, routeOf } as const
}
