/** How a session's packets travel, in the one word that people and metrics use. */
import { isWebRtc, type PathRef } from "./PathRef.ts"

/** Of the relayed ones the worse comes first. */
export const PATH_KINDS = ["relay-tcp", "relay-h3", "relay-udp", "webrtc", "direct"] as const
export type PathKind = (typeof PATH_KINDS)[number]
export type RelayedKind = Exclude<PathKind, "direct" | "webrtc">

const RELAYED_KINDS: ReadonlyArray<RelayedKind> = ["relay-tcp", "relay-h3", "relay-udp"]

/** Of a relayed session the worse leg counts: it is the one that a user would want to mend. Null: not known (yet). */
export const of = (path: PathRef, leg: RelayedKind | null, peerLeg: RelayedKind | null): PathKind =>
  path.kind === "direct"
    ? "direct"
    : isWebRtc(path)
    ? "webrtc"
    : path.relay !== undefined
    ? "relay-udp" // another relay than the first carries packets over UDP only
    : RELAYED_KINDS.find((kind) => kind === leg || kind === peerLeg) ?? "relay-udp"
