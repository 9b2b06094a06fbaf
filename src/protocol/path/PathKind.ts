/** The kinds of path that a session's packets take, in the words that people and metrics see. */
import { isWebRtc, type PathRef } from "./PathRef.ts"

/**
 * All kinds of path, from the worst to the best.
 * - `relay-tcp`: through a relay, with TCP between the relay and at least one side.
 * - `relay-h3`: through a relay, in HTTP/3 datagrams on at least one side.
 * - `relay-udp`: through a relay, over UDP on both sides.
 * - `webrtc`: over a WebRTC connection between the two nodes.
 * - `direct`: over UDP from node to node.
 */
export const PATH_KINDS = ["relay-tcp", "relay-h3", "relay-udp", "webrtc", "direct"] as const
/**
 * Kind of the path that a session's packets take:
 * - `relay-tcp`: through a relay, with TCP between the relay and at least one side.
 * - `relay-h3`: through a relay, in HTTP/3 datagrams on at least one side.
 * - `relay-udp`: through a relay, over UDP on both sides.
 * - `webrtc`: over a WebRTC connection between the two nodes.
 * - `direct`: over UDP from node to node.
 */
export type PathKind = (typeof PATH_KINDS)[number]
/** Kind of a path through a relay, or of one node's leg to it. */
export type RelayedKind = Exclude<PathKind, "direct" | "webrtc">

const RELAYED_KINDS: ReadonlyArray<RelayedKind> = ["relay-tcp", "relay-h3", "relay-udp"]

/**
 * Returns the kind of `path`. A relayed session has the kind of its worse leg, because that is the
 * leg that a user would want to improve. `leg` is this node's leg to its relay and `peerLeg` the
 * peer's; `null` if it is not known (yet).
 */
export const of = (path: PathRef, leg: RelayedKind | null, peerLeg: RelayedKind | null): PathKind =>
  path.kind === "direct"
    ? "direct"
    : isWebRtc(path)
    ? "webrtc"
    : path.relay !== undefined
    // Another relay than the home relay carries packets over UDP only.
    ? "relay-udp"
    : RELAYED_KINDS.find((kind) => kind === leg || kind === peerLeg) ?? "relay-udp"
