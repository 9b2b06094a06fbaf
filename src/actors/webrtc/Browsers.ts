/** A connector's sessions with browsers, from the relay's invitation to their end. */
import { Effect } from "effect"
import type { IceServer } from "node-datachannel"
import * as HostName from "../../protocol/bytes/HostName.ts"
import type { IceSignal } from "../../protocol/candidate/IceSignal.ts"
import { DirectoryTime } from "../../protocol/trust/DirectoryTime.ts"
import type { NodeState } from "../../services/identity/NodeState.ts"
import type * as Metrics from "../../services/telemetry/Metrics.ts"
import { SessionTable } from "../../session/core/SessionTable.ts"
import type { Clocks } from "../../session/Permission.ts"
import { BrowserSession } from "../../transport/webrtc/BrowserSession.ts"
import type { AgentPasswords } from "../../transport/webrtc/TurnProxy.ts"
import type * as FlowTrace from "../mux/FlowTrace.ts"
import { DrainState } from "../mux/sessions/DrainState.ts"
import * as InviteAnswers from "../mux/sessions/InviteAnswers.ts"
import * as SessionDocuments from "../mux/sessions/SessionDocuments.ts"
import type { Draining } from "../mux/StreamMuxRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { NodeEvent, Signaling } from "../signaling/SignalingRpcs.ts"
import * as BrowserFlows from "./BrowserFlows.ts"
import * as BrowserRenewal from "./BrowserRenewal.ts"
import * as BrowserSignals from "./BrowserSignals.ts"
import type { BrowserPeer } from "./WebRtcRpcs.ts"

/** Most sessions of one connector. One more is declined. */
const MAX_SESSIONS = 256
/** How long a browser may take to connect before its session is ended. */
const CONNECT_MS = 30_000
const BRIEF = { deadline: "2 seconds" } as const

/** Options of {@link make}. */
export interface Options {
  readonly node: NodeState
  /** Time of `HostClock`, in ms. */
  readonly hostMs: () => number
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  /** ICE servers for a new connection. */
  readonly servers: Effect.Effect<ReadonlyArray<string | IceServer>>
  /** Passwords of this process's ICE agents. */
  readonly passwords: AgentPasswords
  readonly traces: FlowTrace.FlowTraces
  /** Whether it declines new sessions from the start. */
  readonly draining: boolean
  /** Posts an event of a connection to the actor's inbox. */
  readonly post: (message: Outcome) => void
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Event of a WebRTC connection with a browser, for the actor's inbox. */
export type Outcome =
  | { readonly _tag: "BrowserSignal"; readonly session: SessionId; readonly signal: IceSignal }
  | { readonly _tag: "BrowserDown"; readonly session: SessionId; readonly why: string }

interface Held extends BrowserSignals.Signalled, BrowserRenewal.Renewable {
  readonly name: string
  readonly session: BrowserSession
  /** When the relay sent the invitation, by `hostMs`. */
  readonly since: number
}

/** Makes an empty set of sessions with browsers. Call `tick` every few seconds. */
export const make = ({ draining, fork, hostMs, node, passwords, post, servers, signaling, traces }: Options) => {
  const held = new SessionTable<Held>(MAX_SESSIONS)
  const flows = BrowserFlows.make({ traces, fork })
  const time = new DirectoryTime(hostMs)
  const clocks = { hostMs, nowSeconds: () => time.nowSeconds() }
  /** Whether the directory is reached. Sessions end with their grants all the same. */
  let isReached = true
  const drain = new DrainState(draining)
  const documents = SessionDocuments.make({
    authorityKey: node.relay.authorityKey,
    role: "connector",
    key: node.identity.key,
    nowSeconds: clocks.nowSeconds
  })
  const renewal = BrowserRenewal.make({ held, documents, signaling })

  const end = (id: SessionId, why: string) =>
    Effect.suspend(() => {
      const it = held.remove(id)
      if (it === undefined) return Effect.void
      it.session.close(why)
      return Effect.logInfo("browser gone").pipe(Effect.annotateLogs({ session: id, peer: it.name, why }))
    })

  const sessionOf = opener({ clocks, documents, flows, fork, passwords, post })
  const answer = InviteAnswers.make({
    held,
    drain,
    documents,
    signaling,
    ...BRIEF,
    declined: "browser declined",
    full: "no room for another browser",
    refuse: () => null,
    begin: (opened, { clientName, session: id, ticket }) =>
      Effect.sync(() => {
        const { clientKey, connectorKey } = opened.ticket
        const name = HostName.shown(opened.grant.clientName, clientName)
        const parties = { session: id, clientKey, connectorKey }
        held.add(id, { name, parties, since: hostMs(), ticket, seal: null, session: sessionOf(opened, name) })
        return null
      })
  })
  const onInvite = Effect.fn("WebRtc.onInvite")(
    (invite: InviteAnswers.Invite) => answer(invite),
    Effect.catchAll((error) => Effect.logWarning("a browser's invitation could not be answered", error.message))
  )

  const signals = BrowserSignals.make({
    sign: (message) => node.identity.sign(message),
    forward: (session, box) =>
      Effect.sync(() => fork(Effect.ignore(signaling.ask((it) => it.Forward({ session, box }), BRIEF)))),
    servers
  })

  return {
    /** Handles an event from signaling. */
    onEvent: (event: NodeEvent): Effect.Effect<void> => {
      switch (event._tag) {
        case "TimeLearned":
          return Effect.sync(() => time.set(event.offsetMs))
        case "ReachChanged":
          return Effect.sync(() => {
            if (event.reached && !isReached) fork(renewal.confirmAll)
            isReached = event.reached
          })
        case "Invite":
          return event.over === "webrtc" ? onInvite(event) : Effect.void
        case "Sealed": {
          const it = held.get(event.session)
          return it === undefined ? Effect.void : signals.onBox(it, event.box)
        }
        case "GrantReplaced":
          return renewal.onGrantReplaced(event.session, event.grant)
        case "Revoked":
          return Effect.forEach(
            held.all(),
            ({ parties }) =>
              parties.clientKey === event.node || parties.connectorKey === event.node
                ? end(parties.session, "the node was removed")
                : Effect.void,
            { discard: true }
          )
        case "TicketRenewed":
          return Effect.sync(() => renewal.onTicketRenewed(event.session, event.ticket))
        case "Snapshot":
        case "SessionLost":
        case "RelaysChanged":
        case "BindingsLost":
        case "CredentialRenewed":
        case "Examine":
        case "GoAway":
          return Effect.void
      }
    },
    onOutcome: (outcome: Outcome): Effect.Effect<void> => {
      if (outcome._tag === "BrowserDown") return end(outcome.session, outcome.why)
      const it = held.get(outcome.session)
      return it === undefined ? Effect.void : signals.send(it, outcome.signal)
    },
    /** Ends sessions that are not used or not permitted. */
    tick: Effect.suspend(() =>
      Effect.forEach(held.all(), (it) => {
        const why = overdue(it, hostMs())
        return why === null ? Effect.void : end(it.parties.session, why)
      }, { discard: true })
    ),
    /** Does for browsers what `setDraining` of the data plane's sessions does for nodes. */
    setDraining: (wanted: boolean): Draining => drain.set(wanted, held.all().map(({ session }) => session)),
    closeAll: Effect.suspend(() =>
      Effect.forEach(held.all(), ({ parties: { session: id } }) => end(id, "this connector stops"))
    ),
    peers: (): ReadonlyArray<BrowserPeer> => held.all().map(peerOf).filter(({ local }) => local !== null),
    metrics: (): ReadonlyArray<Metrics.Family> => flows.metrics(held.size)
  } as const
}

interface Opening extends Pick<Options, "fork" | "passwords" | "post"> {
  readonly clocks: Clocks
  readonly documents: SessionDocuments.SessionDocuments
  readonly flows: ReturnType<typeof BrowserFlows.make>
}

/** Makes a function that begins the session of verified documents with the browser of this name. */
const opener =
  ({ clocks, documents, flows, fork, passwords, post }: Opening) =>
  ({ grant, ticket }: SessionDocuments.Opened, name: string): BrowserSession => {
    const { connectorKey, session: id } = ticket
    return new BrowserSession({
      grant,
      ticket,
      key: connectorKey,
      clocks,
      openGrant: (signed) => documents.verify("grant", signed),
      passwords,
      onSignal: (signal) => post({ _tag: "BrowserSignal", session: id, signal }),
      onConnected: (pair) =>
        fork(
          Effect.logInfo("browser connected").pipe(
            Effect.annotateLogs({ session: id, peer: name, ...pair })
          )
        ),
      flowLimits: flows.limits,
      onFlow: (asked) => flows.onFlow(id, name, asked),
      onDown: (why) => post({ _tag: "BrowserDown", session: id, why })
    })
  }

/** Reason why a session ends now. `null` if it goes on. An expired grant cuts its flows. */
const overdue = ({ session, since }: Held, now: number): string | null => {
  if (!session.expire()) return "its grant has expired"
  return !session.isConnected && now - since >= CONNECT_MS ? "not connected in time" : null
}

const peerOf = ({ name, parties, session }: Held) => {
  const { pair, ...status } = session.status
  return { ...status, session: parties.session, name, local: pair?.local ?? null, remote: pair?.remote ?? null }
}
