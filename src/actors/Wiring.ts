/** Which actors a process of each kind is made of, whom each calls, and on which thread each runs unless config says otherwise. */
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
  [RelayMember.name]: [RelayForwarder],
  [RelayForwarder.name]: []
}

export const NODE_ACTORS: ReadonlyArray<Any> = [Signaling, Relay, Stun, PathProber, StreamMux]
export const RELAY_ACTORS: ReadonlyArray<Any> = [SignalingHub, RelayForwarder]
/** Of a relay that has joined another one. */
export const FORWARDER_ACTORS: ReadonlyArray<Any> = [RelayMember, RelayForwarder]

/** Runs in a child process, whose native library may end it: see `Processes`. */
export const APART: ReadonlySet<string> = new Set([WebRtc.name])

/** A thread costs memory and boot time, so: one for decisions and one for packets. */
export const NODE_PLACEMENT = {
  control: [Signaling.name, Relay.name, Stun.name, PathProber.name],
  data: [StreamMux.name]
}
/** Beside those, where config asks for it. */
export const WEBRTC_PLACEMENT = { webRtc: [WebRtc.name] }
export const RELAY_PLACEMENT = { control: [SignalingHub.name], relay: [RelayForwarder.name] }
export const FORWARDER_PLACEMENT = { control: [RelayMember.name], relay: [RelayForwarder.name] }
