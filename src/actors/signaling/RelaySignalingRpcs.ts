/**
 * Messages between a node and its relay over the authenticated relay link: calls by the node, and
 * events from the relay. The relay knows the caller from the link (header `node`), never from a
 * payload. This file has no behaviour.
 */
import { Rpc, RpcGroup } from "@effect/rpc"
import { Schema } from "effect"
import { PRESENCES } from "../../protocol/path/PeerLoss.ts"
import { RelayPoint, RelayPoints } from "../../protocol/relay/RelayPoint.ts"
import { Resource } from "../../protocol/trust/Documents.ts"
import { NodeKey } from "../../protocol/trust/NodeKey.ts"
import { Signed } from "../../protocol/trust/Signed.ts"

/**
 * Public name of a session, 32 hex characters. Its ticket, its grant and its path messages refer to
 * it.
 */
export const SessionId = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{32}$/))
export type SessionId = typeof SessionId.Type

/** Largest sealed path message that the relay forwards over signaling, in bytes. */
export const MAX_SEALED_BYTES = 2048

/** Code by which a relay refuses a node that is not enrolled, or was removed. */
export const UNKNOWN_NODE = "unknown_node"
/** Code by which a relay refuses a browser. */
export const NO_BROWSER = "no_browser"

/**
 * Addresses of a relay, as it advertises them. `host` is a name or an IP address. If `udpPort` is
 * 0, the relay offers no UDP.
 */
export const RelayInfo = Schema.Struct({
  host: Schema.NonEmptyString,
  httpsPort: Schema.Int,
  udpPort: Schema.Int,
  /**
   * Whether the relay takes links over HTTP/3, at the UDP port with the number of the HTTPS port.
   */
  http3: Schema.optionalWith(Schema.Boolean, { exact: true })
})
export type RelayInfo = typeof RelayInfo.Type

/**
 * The whole state. It comes first on every subscription and replaces everything that earlier events
 * said. `serverTime` is the directory's clock when the subscription began, in ms since the epoch.
 */
export const Snapshot = Schema.TaggedStruct("Snapshot", {
  /** Number of the directory's last change. */
  version: Schema.Int,
  serverTime: Schema.Number,
  relay: RelayInfo,
  /** Other relays, in the same order for every node. */
  relays: RelayPoints,
  /** The node's own relay credential. */
  credential: Signed,
  /** Whether the relay accepts reports of nodes. */
  reports: Schema.optionalWith(Schema.Boolean, { exact: true })
})
/** Event: the list of other relays changed. */
export const RelaysChanged = Schema.TaggedStruct("RelaysChanged", { relays: RelayPoints })
/** Event: the relay's forwarder was restarted and has lost its bindings. Nodes must bind again. */
export const BindingsLost = Schema.TaggedStruct("BindingsLost", {})
/** Event: the node has a new relay credential. */
export const CredentialRenewed = Schema.TaggedStruct("CredentialRenewed", { credential: Signed })
/**
 * Outage permit of the grant beside it (`Documents.Outage`). Relays of earlier versions send none.
 */
const OutagePermit = Schema.optionalWith(Signed, { exact: true })
/**
 * Event: a connector is invited to a session with a client. The connector verifies the grant and
 * then answers with `Ready` or `Decline`.
 */
export const Invite = Schema.TaggedStruct("Invite", {
  session: SessionId,
  grant: Signed,
  outage: OutagePermit,
  ticket: Signed,
  /**
   * The client's name as the administrator wrote it. It is only shown, and only if it writes the
   * grant's name.
   */
  clientName: Schema.optionalWith(Schema.String, { exact: true }),
  /** Set if the client is a browser, which has no QUIC of its own. */
  over: Schema.optionalWith(Schema.Literal("webrtc"), { exact: true }),
  /** W3C Trace Context of the dial, if it is traced. */
  traceparent: Schema.optionalWith(Schema.String, { exact: true })
})
/** Event: a session has a new grant, because access rules changed or the grant was renewed. */
export const GrantReplaced = Schema.TaggedStruct("GrantReplaced", {
  session: SessionId,
  grant: Signed,
  outage: OutagePermit
})
/**
 * Event: the other end has renewed this session. The node must open its end at the relay with the
 * new ticket.
 */
export const TicketRenewed = Schema.TaggedStruct("TicketRenewed", { session: SessionId, ticket: Signed })
/** Event: the node was removed. Every session with it ends now. */
export const Revoked = Schema.TaggedStruct("Revoked", { node: NodeKey })
/** Event: the peer of a session sent a sealed path message over signaling. */
export const Sealed = Schema.TaggedStruct("Sealed", { session: SessionId, box: Schema.Uint8ArrayFromSelf })
/**
 * Event: the connector was restarted and has lost its end of this session, with the flows in it.
 * The client must dial again.
 */
export const SessionLost = Schema.TaggedStruct("SessionLost", { session: SessionId })
/**
 * Event: the relay asks for the findings of the node's `doctor`, which the node sends as
 * `Findings`. The relay asks only nodes that have sent a report on this link.
 */
export const Examine = Schema.TaggedStruct("Examine", { question: Schema.String.pipe(Schema.maxLength(32)) })
/**
 * Event: the relay stops soon. The node should reconnect after this many milliseconds. The relay
 * gives each node another delay, so that they do not all reconnect at once.
 */
export const GoAway = Schema.TaggedStruct("GoAway", { reconnectAfterMs: Schema.Number })

/** Event from the relay. */
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

/**
 * Reason why a dial made no session. `name_not_found`, `denied` and `port_not_listed` need an
 * administrator. The other causes may end without help.
 */
export const DialCode = Schema.Literal(
  "name_not_found",
  "denied",
  "port_not_listed",
  "no_connector",
  "connector_declined",
  "overloaded"
)
export type DialCode = typeof DialCode.Type

/** Error when a dial made no session. `message` says why. */
export class DialRefused extends Schema.TaggedError<DialRefused>()("DialRefused", {
  code: DialCode,
  message: Schema.String
}) {}

/**
 * Error when a node may not register a relay. Only a relay that has joined may do that, and only
 * under its own name.
 */
export class NoRelay extends Schema.TaggedError<NoRelay>()("NoRelay", { message: Schema.String }) {}

/** Error when this relay offers no TURN, or none to this node. */
export class NoTurn extends Schema.TaggedError<NoTurn>()("NoTurn", { message: Schema.String }) {}

/**
 * Error when a report was not stored: it exceeds the limits of `NodeReport`, or the relay cannot
 * read it.
 */
export class ReportRefused extends Schema.TaggedError<ReportRefused>()("ReportRefused", {
  code: Schema.Literal("unknown_node", "too_often", "too_long", "invalid"),
  message: Schema.String
}) {}

/**
 * TURN servers and credentials in the form that an ICE agent takes (RFC 7065 for the URLs).
 * `expiresAt` is in epoch seconds.
 */
export const TurnServers = Schema.Struct({
  urls: Schema.Array(Schema.String),
  username: Schema.String,
  password: Schema.Redacted(Schema.String),
  expiresAt: Schema.Number
})
export type TurnServers = typeof TurnServers.Type

/**
 * Error when a session belongs to other nodes, or the relay no longer knows it. The node must dial
 * again.
 */
export class UnknownSession extends Schema.TaggedError<UnknownSession>()("UnknownSession", { session: SessionId }) {}

/** Target of a flow: a host as the resources name it, a port and a protocol. */
export const Target = Schema.Struct({
  host: Schema.NonEmptyString.pipe(Schema.maxLength(255)),
  port: Schema.Int.pipe(Schema.between(1, 65535)),
  protocol: Schema.Literal("tcp", "udp")
})
export type Target = typeof Target.Type

/** A resource, with its name as people wrote it if that differs from the one that is compared. */
export const NamedResource = Schema.Struct({
  ...Resource.fields,
  shown: Schema.optionalWith(Schema.String, { exact: true })
})
export type NamedResource = typeof NamedResource.Type

/** A session that a connector has accepted. */
export const Dialed = Schema.Struct({
  session: SessionId,
  connectorKey: NodeKey,
  /**
   * The connector's name as the administrator wrote it. It is only shown, and only if it writes the
   * grant's name.
   */
  connectorName: Schema.String,
  grant: Signed,
  outage: OutagePermit,
  ticket: Signed
})
export type Dialed = typeof Dialed.Type

/** New documents of a session. */
export const RenewedDocuments = Schema.Struct({ grant: Signed, outage: OutagePermit, ticket: Signed })
export type RenewedDocuments = typeof RenewedDocuments.Type

/** Calls of a node to its relay, over the relay link. */
export class RelaySignalingRpcs extends RpcGroup.make(
  /** Events for this node from now on, `Snapshot` first. A link has at most one subscription. */
  Rpc.make("Watch", { success: SignalingEvent, stream: true }),
  /**
   * Answers with the directory's clock, in ms since the epoch. Everybody who judges documents asks
   * for it now and then.
   */
  Rpc.make("Time", { success: Schema.Number }),
  /**
   * Asks for a session with a connector that reaches `target`, other than those in `exclude`.
   * Answers when the connector has said `Ready`: it has then verified the grant and opened its end
   * at the relay.
   */
  Rpc.make("Dial", {
    payload: { target: Target, exclude: Schema.Array(NodeKey).pipe(Schema.maxItems(16)) },
    success: Dialed,
    error: DialRefused
  }),
  /** Accepts an invitation. Connector only. */
  Rpc.make("Ready", { payload: { session: SessionId } }),
  /** Declines an invitation. Connector only. */
  Rpc.make("Decline", { payload: { session: SessionId, reason: Schema.String.pipe(Schema.maxLength(200)) } }),
  /**
   * Reports that all of this connector's sessions with browsers are gone, as after a crash. The
   * relay notifies the browsers, so that they need not wait to notice.
   */
  Rpc.make("BrowsersLost"),
  /**
   * Reports that a connector's data plane has just started. It has lost every session that it had
   * accepted, except those in `held`.
   */
  Rpc.make("SessionsLost", { payload: { held: Schema.Array(SessionId).pipe(Schema.maxItems(1024)) } }),
  /**
   * Asks whether the connector of this ticket's session is connected to the relay. Only the
   * ticket's two nodes may ask.
   */
  Rpc.make("Presence", {
    payload: { ticket: Signed },
    success: Schema.Literal(...PRESENCES),
    error: DialRefused
  }),
  /**
   * Exchanges a session's ticket for a new grant and ticket, which the other end receives, too. The
   * ticket contains everything needed, because a restarted relay no longer knows the session. It
   * may have expired while the directory was not reached. A connector whose client may reach
   * nothing any more receives a grant without resources; the client is refused.
   */
  Rpc.make("Renew", {
    payload: { ticket: Signed },
    success: RenewedDocuments,
    error: DialRefused
  }),
  /**
   * Registers where nodes reach this relay, on every link again. Only for a relay that has joined.
   */
  Rpc.make("PlaceRelay", { payload: RelayPoint, error: NoRelay }),
  /**
   * Answers with credentials for this node's ICE agent. They are good for new allocations until
   * `expiresAt`. Allocations made by then may last until 12 hours after the issue.
   */
  Rpc.make("TurnCredentials", { success: TurnServers, error: NoTurn }),
  /**
   * Stores a report, which replaces the node's previous one. `text` is a `NodeReport.ReportText`.
   */
  Rpc.make("Report", { payload: { text: Schema.String }, error: ReportRefused }),
  /** Answers `Examine`. `text` is a `NodeReport.FindingsText`. */
  Rpc.make("Findings", { payload: { question: Schema.String, text: Schema.String }, error: ReportRefused }),
  /** Resources that this client may reach now, in the order of the configuration. */
  Rpc.make("Resources", { success: NamedResource, stream: true }),
  /**
   * Passes a sealed path message to the session's other side, if that is connected. It may be lost.
   */
  Rpc.make("Forward", {
    payload: {
      session: SessionId,
      box: Schema.Uint8ArrayFromSelf.pipe(Schema.filter((box) => box.length <= MAX_SEALED_BYTES || "box too long"))
    },
    error: UnknownSession
  })
) {}
