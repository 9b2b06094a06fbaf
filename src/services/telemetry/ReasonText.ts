/** Texts for the reasons of a path choice, and remedies for those that a user can change. */
import type { Reason } from "../../protocol/path/PathRef.ts"

/** Explanation of each reason. */
export const TEXT: Readonly<Record<Reason, string>> = {
  relay_first: "the session is new: the relay works at once, and direct paths are being tried",
  resumed: "the path was in use when this node's path choice restarted",
  no_candidates: "one side has offered no address that could be tried",
  no_common_family: "one side has only IPv4 and the other only IPv6 addresses",
  udp_blocked: "this network lets no UDP through",
  symmetric_both: "both NATs use a different port for each destination, so neither side can know the other's port",
  guessing: "relayed while the ports of a NAT are being guessed",
  guess_exhausted: "relayed: port guessing has used up its attempts, and no guessed port answered",
  guess_unavailable: "relayed: port guessing needs more sockets than this host allows",
  probing: "relayed while direct paths are being tried",
  probes_unanswered:
    "no direct path answers: each address that the other side offered was probed, and no answer came back through the NATs and firewalls between",
  direct_proved: "a direct path answers and costs no more",
  direct_faster: "a direct path is clearly faster",
  direct_slower_than_relay: "a direct path answers, but the relay is clearly faster",
  webrtc_faster: "no direct path answers, and the WebRTC connection that ICE made is faster than the relay",
  relay_faster: "another relay is clearly faster",
  path_blackholed: "the previous path went silent",
  path_failed: "the previous path failed",
  network_changed: "this machine's addresses changed",
  peer_request: "the other side asked to leave the previous path",
  peer_selected: "the client chose it",
  relay_only: "the configuration (path: relay) allows no direct path",
  nothing_answers: "no path answers now; the last one is kept"
}

/**
 * Remedy for a session that stays relayed. `undefined` if nothing is wrong or nothing can be done
 * here.
 */
export const REMEDY: Readonly<Partial<Record<Reason, string>>> = {
  no_candidates:
    "check that neither side has path: relay in its configuration, and that both reach the relay's UDP port",
  no_common_family: "give both sides an address of one IP version",
  udp_blocked: "allow outgoing UDP in this network, at least to the relay's UDP port; sallyport netcheck says more",
  symmetric_both:
    "on one side, allow the gateway to map ports (UPnP, NAT-PMP or PCP), or forward a UDP port and name it (udp: {port: N, advertise: [\"IP:N\"]}), or use IPv6",
  guess_exhausted:
    "sallyport tries again later; a mapped or forwarded UDP port on the side with the symmetric NAT, or IPv6, makes a direct path possible",
  guess_unavailable: "raise the limit of open files (ulimit -n, or LimitNOFILE of the service) to 1024 or more",
  probes_unanswered:
    "run sallyport netcheck on both sides; a forwarded UDP port (udp: {port: N, advertise: [\"IP:N\"]}) or IPv6 on one side makes a direct path possible",
  nothing_answers: "check that the other side runs, and that this machine is online"
}
