/**
 * Every actor of this program, by the name of its address. A thread imports only the actors placed
 * on it.
 */
import type { Registry } from "./runtime/ThreadHost.ts"

export const registry: Registry = {
  signaling: () => import("./SignalingActor.ts").then(({ actor }) => actor),
  stun: () => import("./StunActor.ts").then(({ actor }) => actor),
  pathProber: () => import("./PathProberActor.ts").then(({ actor }) => actor),
  relay: () => import("./RelayActor.ts").then(({ actor }) => actor),
  streamMux: () => import("./StreamMuxActor.ts").then(({ actor }) => actor),
  webRtc: () => import("./WebRtcActor.ts").then(({ actor }) => actor),
  http3: () => import("./Http3Actor.ts").then(({ actor }) => actor),
  signalingHub: () => import("./SignalingHubActor.ts").then(({ actor }) => actor),
  relayMember: () => import("./RelayMemberActor.ts").then(({ actor }) => actor),
  relayForwarder: () => import("./RelayForwarderActor.ts").then(({ actor }) => actor)
}
