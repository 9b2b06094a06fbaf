/**
 * Lists the actors of each kind of process, which actors each one calls, and the thread on which
 * each runs unless config says otherwise.
 */
import { RelayForwarder } from "./forwarder/RelayForwarderRpcs.ts"
import { Http3 } from "./http3/Http3Rpcs.ts"
import { SignalingHub } from "./hub/SignalingHubRpcs.ts"
import { RelayMember } from "./member/RelayMemberRpcs.ts"
import { StreamMux } from "./mux/StreamMuxRpcs.ts"
import { PathProber } from "./path/PathProberRpcs.ts"
import { Relay } from "./relay/RelayRpcs.ts"
import type { Any } from "./runtime/actor/ActorAddress.ts"
import { Signaling } from "./signaling/SignalingRpcs.ts"
import { Stun } from "./stun/StunRpcs.ts"
import { WebRtc } from "./webrtc/WebRtcRpcs.ts"

/**
 * Actors that each actor calls, by its name. The actors declare the same `uses` themselves, and a
 * thread refuses an actor whose declaration differs.
 */
export const USES: Readonly<Record<string, ReadonlyArray<Any>>> = {
  [Signaling.name]: [Stun],
  [Relay.name]: [Signaling, StreamMux, Stun],
  [Stun.name]: [StreamMux],
  [PathProber.name]: [StreamMux, Stun],
  [StreamMux.name]: [Signaling, Relay],
  [WebRtc.name]: [StreamMux, PathProber, Signaling, Stun],
  [SignalingHub.name]: [RelayForwarder],
  [Http3.name]: [SignalingHub],
  [RelayMember.name]: [RelayForwarder],
  [RelayForwarder.name]: []
}

/** Actors of a node. */
export const NODE_ACTORS: ReadonlyArray<Any> = [Signaling, Relay, Stun, PathProber, StreamMux]
/** Actors of the relay that holds the directory. */
export const RELAY_ACTORS: ReadonlyArray<Any> = [SignalingHub, RelayForwarder]
/** Actors of a relay that has joined another one. */
export const FORWARDER_ACTORS: ReadonlyArray<Any> = [RelayMember, RelayForwarder]

/**
 * Actors that run in child processes, because their native libraries may crash or block the process
 * (see `Processes`). The main process works without them.
 */
export const APART: ReadonlySet<string> = new Set([WebRtc.name, Http3.name])

/**
 * Threads of a node: one for decisions and one for packets. There are no more, because each thread
 * costs memory and boot time.
 */
export const NODE_PLACEMENT = {
  control: [Signaling.name, Relay.name, Stun.name, PathProber.name],
  data: [StreamMux.name]
}
/** Thread for WebRTC. It is added to the node's threads if the configuration asks for it. */
export const WEBRTC_PLACEMENT = { webRtc: [WebRtc.name] }
/** Threads of the relay that holds the directory. */
export const RELAY_PLACEMENT = { control: [SignalingHub.name], relay: [RelayForwarder.name] }
/** Thread for HTTP/3. It is added to the relay's threads if the configuration asks for it. */
export const HTTP3_PLACEMENT = { http3: [Http3.name] }
/** Threads of a relay that has joined another one. */
export const FORWARDER_PLACEMENT = { control: [RelayMember.name], relay: [RelayForwarder.name] }
