/**
 * Every actor of this program, by the name of its address. A thread imports only the actors placed
 * on it.
 */
import type { Registry } from "./runtime/thread/ThreadHost.ts"

/** All actors by name, for the threads that run them. */
export const registry: Registry = {
  signaling: () => import("./signaling/SignalingActor.ts").then(({ actor }) => actor),
  stun: () => import("./stun/StunActor.ts").then(({ actor }) => actor),
  pathProber: () => import("./path/PathProberActor.ts").then(({ actor }) => actor),
  relay: () => import("./relay/RelayActor.ts").then(({ actor }) => actor),
  streamMux: () => import("./mux/StreamMuxActor.ts").then(({ actor }) => actor),
  webRtc: () => import("./webrtc/WebRtcActor.ts").then(({ actor }) => actor),
  http3: () => import("./http3/Http3Actor.ts").then(({ actor }) => actor),
  signalingHub: () => import("./hub/SignalingHubActor.ts").then(({ actor }) => actor),
  relayMember: () => import("./member/RelayMemberActor.ts").then(({ actor }) => actor),
  relayForwarder: () => import("./forwarder/RelayForwarderActor.ts").then(({ actor }) => actor)
}
