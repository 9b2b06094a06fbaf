/** Which actors a process of each kind is made of, whom each calls, and on which thread each runs unless config says otherwise. */
import { Http3 } from "./Http3Rpcs.ts"
import { PathProber } from "./PathProberRpcs.ts"
import { RelayForwarder } from "./RelayForwarderRpcs.ts"
import { RelayMember } from "./RelayMemberRpcs.ts"
import { Relay } from "./RelayRpcs.ts"
import type { Any } from "./runtime/ActorAddress.ts"
import { SignalingHub } from "./SignalingHubRpcs.ts"
import { Signaling } from "./SignalingRpcs.ts"
import { StreamMux } from "./StreamMuxRpcs.ts"
import { Stun } from "./StunRpcs.ts"
import { WebRtc } from "./WebRtcRpcs.ts"

/** By actor name. The actors themselves declare the same `uses`; a thread refuses an actor whose edges differ. */
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

export const NODE_ACTORS: ReadonlyArray<Any> = [Signaling, Relay, Stun, PathProber, StreamMux]
export const RELAY_ACTORS: ReadonlyArray<Any> = [SignalingHub, RelayForwarder]
/** Of a relay that has joined another one. */
export const FORWARDER_ACTORS: ReadonlyArray<Any> = [RelayMember, RelayForwarder]

/** Run in child processes, since their native libraries may end or stop them (see `Processes`); a process lives without them. */
export const APART: ReadonlySet<string> = new Set([WebRtc.name, Http3.name])

/** A thread costs memory and boot time, so: one for decisions and one for packets. */
export const NODE_PLACEMENT = {
  control: [Signaling.name, Relay.name, Stun.name, PathProber.name],
  data: [StreamMux.name]
}
/** Beside those, where config asks for it. */
export const WEBRTC_PLACEMENT = { webRtc: [WebRtc.name] }
export const RELAY_PLACEMENT = { control: [SignalingHub.name], relay: [RelayForwarder.name] }
/** Beside those, where config asks for it. */
export const HTTP3_PLACEMENT = { http3: [Http3.name] }
export const FORWARDER_PLACEMENT = { control: [RelayMember.name], relay: [RelayForwarder.name] }
