/**
 * The kinds of path that a session's packets take, as one table. Status, metrics, path costs,
 * `doctor` and the numbers of legs on the wire derive from it, so a new kind is one more row.
 */
import { isWebRtc, type PathRef } from "./PathRef.ts"

/** Properties of one kind of path that the rest of the program derives its behaviour from. */
export interface Row {
  /** Name in status, metrics, traces and reports. Other versions know it, so it never changes. */
  readonly kind: string
  /** Way of the packets: through a relay, over a WebRTC connection, or straight to the peer. */
  readonly route: "relay" | "webrtc" | "direct"
  /**
   * Number of a node's leg of this kind in `SessionWire`; `RelayWire` adds one. The numbers begin
   * at 0, without a gap. `null` if a leg cannot be of this kind.
   */
  readonly wire: number | null
  /** Carrier of this node's packets. A list names the carriers of a link to the relay. */
  readonly carriedBy: "udp" | "webrtc" | ReadonlyArray<string>
  /** Description for people, a noun phrase without a full stop. */
  readonly label: string
  /** Extra cost of the path, in ms, by which it competes with paths of other kinds. */
  readonly biasMs: number
  /**
   * Finding of `doctor` while a leg is of this kind. `null` if there is no better kind of leg.
   * `more` is a remedy besides UDP that works, or `null`.
   */
  readonly remedy: { readonly code: string; readonly what: string; readonly more: string | null } | null
}

/**
 * All kinds of path, from the worst to the best. The biases say: a path through a relay is a little
 * worse than a direct one of equal latency, because the relay is shared and one more host that can
 * fail. Over TCP a lost packet also holds back all packets behind it. A WebRTC path has two more
 * processes on the way, and its frames travel inside DTLS and SCTP.
 */
const ROWS = [
  {
    kind: "relay-tcp",
    route: "relay",
    wire: 2,
    carriedBy: ["websocket", "webtransport-h2"],
    label: "Through a relay, with TCP between the relay and at least one side",
    biasMs: 10,
    remedy: {
      code: "leg_by_tls",
      what: "relayed packets go over TLS, which is slow",
      more: "if this network allows HTTP/3, set http3: true at the relay"
    }
  },
  {
    kind: "relay-h3",
    route: "relay",
    wire: 1,
    carriedBy: ["webtransport-h3"],
    label: "Through a relay, in HTTP/3 datagrams on at least one side",
    biasMs: 5,
    remedy: {
      code: "leg_by_http3",
      what: "relayed packets go over HTTP/3, which costs more than plain UDP",
      more: null
    }
  },
  {
    kind: "relay-udp",
    route: "relay",
    wire: 0,
    carriedBy: "udp",
    label: "Through a relay, over UDP on both sides",
    biasMs: 3,
    remedy: null
  },
  {
    kind: "webrtc",
    route: "webrtc",
    wire: null,
    carriedBy: "webrtc",
    label: "Over a WebRTC connection between the two nodes",
    biasMs: 5,
    remedy: null
  },
  {
    kind: "direct",
    route: "direct",
    wire: null,
    carriedBy: "udp",
    label: "Over UDP from node to node",
    biasMs: 0,
    remedy: null
  }
] as const satisfies ReadonlyArray<Row>

type AnyRow = (typeof ROWS)[number]
type LinkRow = Extract<AnyRow, { readonly carriedBy: ReadonlyArray<string> }>

/**
 * Kind of the path that a session's packets take:
 * - `relay-tcp`: through a relay, with TCP between the relay and at least one side.
 * - `relay-h3`: through a relay, in HTTP/3 datagrams on at least one side.
 * - `relay-udp`: through a relay, over UDP on both sides.
 * - `webrtc`: over a WebRTC connection between the two nodes.
 * - `direct`: over UDP from node to node.
 */
export type PathKind = AnyRow["kind"]
/** Kind of a node's leg to a relay. It is also the kind of a path through a relay. */
export type LegKind = Extract<AnyRow, { readonly wire: number }>["kind"]
/** Kind of a leg that is carried by a link. */
export type LinkKind = LinkRow["kind"]
/** Protocol that carries a link between a node and a relay. */
export type LinkCarrier = LinkRow["carriedBy"][number]

/** All kinds of path, from the worst to the best. */
export const PATH_KINDS: ReadonlyArray<PathKind> = ROWS.map(({ kind }) => kind)
const LEG_ROWS = ROWS.filter((row) => row.wire !== null)
/** All kinds of leg. The index of a kind is its number in `SessionWire`. */
export const LEG_KINDS: ReadonlyArray<LegKind> = LEG_ROWS.toSorted((a, b) => a.wire - b.wire).map(({ kind }) => kind)
const LINK_ROWS = ROWS.filter((row): row is LinkRow => typeof row.carriedBy === "object")
/** Kinds of leg that are carried by a link. */
export const LINK_KINDS: ReadonlyArray<LinkKind> = LINK_ROWS.map(({ kind }) => kind)
const RELAY_KINDS = LEG_ROWS.map(({ kind }) => kind) // from the worst to the best

/** Makes a record with one value for each kind of path. */
export const perKind = <A>(valueOf: (kind: PathKind) => A): Readonly<Record<PathKind, A>> => {
  const record: Partial<Record<PathKind, A>> = {}
  for (const kind of PATH_KINDS) record[kind] = valueOf(kind)
  return record as Record<PathKind, A>
}

/** The table by kind. */
export const TABLE: Readonly<Record<PathKind, Row>> = perKind((kind) => ROWS.find((row) => row.kind === kind)!)

/** Returns the row of a kind by its name. `undefined` if there is no such kind. */
export const find = (name: string | null | undefined): Row | undefined => ROWS.find(({ kind }) => kind === name)

/** Whether the kind of this name goes straight from node to node. */
export const isDirect = (name: string | null | undefined): boolean => find(name)?.route === "direct"

/** Returns the kind of the leg that a link of this carrier makes. */
export const ofLink = (carrier: LinkCarrier): LinkKind =>
  LINK_ROWS.find(({ carriedBy }) => (carriedBy as ReadonlyArray<string>).includes(carrier))!.kind

/**
 * Returns the kind of `path`. A relayed session has the kind of its worse leg, because that is the
 * leg that a user would want to improve. `leg` is this node's leg to its relay and `peerLeg` the
 * peer's; `null` if it is not known (yet).
 */
export const of = (path: PathRef, leg: LegKind | null, peerLeg: LegKind | null): PathKind =>
  path.kind === "direct"
    ? "direct"
    : isWebRtc(path)
    ? "webrtc"
    : path.relay !== undefined
    // Another relay than the home relay carries packets over UDP only.
    ? "relay-udp"
    : RELAY_KINDS.find((kind) => kind === leg || kind === peerLeg) ?? "relay-udp"
