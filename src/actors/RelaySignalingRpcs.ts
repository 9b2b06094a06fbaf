/**
 * What a node and its relay say to each other over the authenticated relay link: questions by the node, events by the relay.
 * The relay knows who asks from the link (header `node`), never from a payload. No behaviour here.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { Resource } from "../protocol/Documents.ts"
import { NodeKey } from "../protocol/NodeKey.ts"
import { PRESENCES } from "../protocol/PeerLoss.ts"
import { RelayPoint, RelayPoints } from "../protocol/RelayPoint.ts"
import { Signed } from "../protocol/Signed.ts"

/** The session's public name, 32 hex characters: the key of its ticket, its grant and its path messages. */
export const SessionId = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{32}$/))
export type SessionId = typeof SessionId.Type

/** Largest sealed path message that the relay passes on by signaling, bytes. */
export const MAX_SEALED_BYTES = 2048

/** The code with which a relay refuses a node that it does not know, or not any more. */
export const UNKNOWN_NODE = "unknown_node"
/** The code with which a relay refuses a browser. */
export const NO_BROWSER = "no_browser"

/** Where a relay is reached, as it advertises itself. `host` is a name or an address; 0 for `udpPort` means: no UDP here. */
export const RelayInfo = Schema.Struct({
  host: Schema.NonEmptyString,
  httpsPort: Schema.Int,
  udpPort: Schema.Int,
  /** Whether it takes links over HTTP/3, at the UDP port of the same number as HTTPS. */
  http3: Schema.optionalWith(Schema.Boolean, { exact: true })
})
export type RelayInfo = typeof RelayInfo.Type

/**
 * The whole state, first on every subscription: what was pushed before it no longer matters. `serverTime` is the directory's
 * clock when the subscription began, epoch milliseconds.
 */
export const Snapshot = Schema.TaggedStruct("Snapshot", {
  version: Schema.Int,
  serverTime: Schema.Number,
  relay: RelayInfo,
  /** Beside it, in the same order for every node. */
  relays: RelayPoints,
  credential: Signed,
  /** Whether it takes in what nodes report. */
  reports: Schema.optionalWith(Schema.Boolean, { exact: true })
})
/** Other relays than in the snapshot, or elsewhere. */
export const RelaysChanged = Schema.TaggedStruct("RelaysChanged", { relays: RelayPoints })
/** What carries packets at the relay has started anew, and knows no binding: bind again. */
export const BindingsLost = Schema.TaggedStruct("BindingsLost", {})
export const CredentialRenewed = Schema.TaggedStruct("CredentialRenewed", { credential: Signed })
/** A client may reach this connector: answer with `Ready` or `Decline` once the grant is verified. */
export const Invite = Schema.TaggedStruct("Invite", {
  session: SessionId,
  grant: Signed,
  ticket: Signed,
  /** The client is a browser, which has no QUIC of its own. */
  over: Schema.optionalWith(Schema.Literal("webrtc"), { exact: true }),
  /** W3C Trace Context: of the dial, if it is traced. */
  traceparent: Schema.optionalWith(Schema.String, { exact: true })
})
/** The grant of a session was replaced (access rules changed, or it was renewed). */
export const GrantReplaced = Schema.TaggedStruct("GrantReplaced", { session: SessionId, grant: Signed })
/** The client has renewed this session: the connector's end at the relay lives on by the new ticket. */
export const TicketRenewed = Schema.TaggedStruct("TicketRenewed", { session: SessionId, ticket: Signed })
/** Every session with this node ends now. */
export const Revoked = Schema.TaggedStruct("Revoked", { node: NodeKey })
/** A sealed path message of the session's other side. */
export const Sealed = Schema.TaggedStruct("Sealed", { session: SessionId, box: Schema.Uint8ArrayFromSelf })
/** The connector has lost its end of this session, with the flows in it: it was restarted. Dial again. */
export const SessionLost = Schema.TaggedStruct("SessionLost", { session: SessionId })
/** Asked only of a node that has reported on this link: what its doctor says. Answer with `Findings`. */
export const Examine = Schema.TaggedStruct("Examine", { question: Schema.String.pipe(Schema.maxLength(32)) })
/** The relay stops soon; reconnect after this many milliseconds (spread over the nodes by the relay). */
export const GoAway = Schema.TaggedStruct("GoAway", { reconnectAfterMs: Schema.Number })

export const SignalingEvent = Schema.Union(
  Snapshot,
  RelaysChanged,
  BindingsLost,
  CredentialRenewed,
  Invite,
  GrantReplaced,
  TicketRenewed,
  Revoked,
  Sealed,
  SessionLost,
  Examine,
  GoAway
)
export type SignalingEvent = typeof SignalingEvent.Type

/** Why no session was made. `retryable` codes may pass by themselves; the others need an administrator. */
export const DialCode = Schema.Literal(
  "name_not_found",
  "denied",
  "port_not_listed",
  "no_connector",
  "connector_declined",
  "timed_out",
  "overloaded"
)
export type DialCode = typeof DialCode.Type

export class DialRefused extends Schema.TaggedError<DialRefused>()("DialRefused", {
  code: DialCode,
  message: Schema.String
}) {}

/** Only a relay that has joined may say where it is, and only under its own name. */
export class NoRelay extends Schema.TaggedError<NoRelay>()("NoRelay", { message: Schema.String }) {}

/** This relay offers no TURN, or not to this node. */
export class NoTurn extends Schema.TaggedError<NoTurn>()("NoTurn", { message: Schema.String }) {}

/** What a node has told of itself is not kept: it is over the limits of `NodeReport`, or the relay cannot read it. */
export class ReportRefused extends Schema.TaggedError<ReportRefused>()("ReportRefused", {
  code: Schema.Literal("unknown_node", "too_often", "too_long", "invalid"),
  message: Schema.String
}) {}

/** As an ICE agent takes it (RFC 7065 for the addresses). `expiresAt`: epoch seconds. */
export const TurnServers = Schema.Struct({
  urls: Schema.Array(Schema.String),
  username: Schema.String,
  password: Schema.Redacted(Schema.String),
  expiresAt: Schema.Number
})
export type TurnServers = typeof TurnServers.Type

/** This session is not yours, or the relay no longer knows it: dial again. */
export class UnknownSession extends Schema.TaggedError<UnknownSession>()("UnknownSession", { session: SessionId }) {}

export const Target = Schema.Struct({
  host: Schema.NonEmptyString.pipe(Schema.maxLength(255)),
  port: Schema.Int.pipe(Schema.between(1, 65535)),
  protocol: Schema.Literal("tcp", "udp")
})
export type Target = typeof Target.Type

export const Dialed = Schema.Struct({
  session: SessionId,
  connectorKey: NodeKey,
  connectorName: Schema.String,
  grant: Signed,
  ticket: Signed
})
export type Dialed = typeof Dialed.Type

export class RelaySignalingRpcs extends RpcGroup.make(
  /** Everything the relay has to tell this node, from now on; `Snapshot` first. One subscription a link. */
  Rpc.make("Watch", { success: SignalingEvent, stream: true }),
  /** The directory's clock, epoch milliseconds: asked for now and then by everybody who judges documents. */
  Rpc.make("Time", { success: Schema.Number }),
  /** Answered when the connector said `Ready`: it has verified the grant and opened its end at the relay. */
  Rpc.make("Dial", {
    payload: { target: Target, exclude: Schema.Array(NodeKey).pipe(Schema.maxItems(16)) },
    success: Dialed,
    error: DialRefused
  }),
  Rpc.make("Ready", { payload: { session: SessionId } }),
  Rpc.make("Decline", { payload: { session: SessionId, reason: Schema.String.pipe(Schema.maxLength(200)) } }),
  /** Of a connector whose sessions with browsers are all gone, as after a crash. They are told, and need not wait to notice. */
  Rpc.make("BrowsersLost"),
  /** A connector's data plane has just started: it has lost every session that it had taken, except those in `held`. */
  Rpc.make("SessionsLost", { payload: { held: Schema.Array(SessionId).pipe(Schema.maxItems(1024)) } }),
  /** Whether the connector of this ticket's session is connected to the relay. Only the ticket's client may ask. */
  Rpc.make("Presence", {
    payload: { ticket: Signed },
    success: Schema.Literal(...PRESENCES),
    error: DialRefused
  }),
  /** A new grant and ticket for the session of this ticket, which itself says all: a relay that was restarted knows no sessions. */
  Rpc.make("Renew", {
    payload: { ticket: Signed },
    success: Schema.Struct({ grant: Signed, ticket: Signed }),
    error: DialRefused
  }),
  /** Of a relay that has joined: where nodes reach it. To be said on every link. */
  Rpc.make("PlaceRelay", { payload: RelayPoint, error: NoRelay }),
  /** For this node's ICE agent. Good for new allocations until `expiresAt`, and 12 hours from issue for those made by then. */
  Rpc.make("TurnCredentials", { success: TurnServers, error: NoTurn }),
  /** Takes the place of the report before. `text`: `NodeReport.ReportText`. */
  Rpc.make("Report", { payload: { text: Schema.String }, error: ReportRefused }),
  /** The answer to `Examine`. `text`: `NodeReport.FindingsText`. */
  Rpc.make("Findings", { payload: { question: Schema.String, text: Schema.String }, error: ReportRefused }),
  /** What this client may reach now, in the order of the configuration. */
  Rpc.make("Resources", { success: Resource, stream: true }),
  /** Passes a sealed path message to the session's other side, if it is connected; no promise that it arrives. */
  Rpc.make("Forward", {
    payload: {
      session: SessionId,
      box: Schema.Uint8ArrayFromSelf.pipe(Schema.filter((box) => box.length <= MAX_SEALED_BYTES || "box too long"))
    },
    error: UnknownSession
  })
) {}
