/** Reasons for a path, in words, and what would mend it where something can be mended. */
import type { Reason } from "../protocol/PathRef.ts"

export const TEXT: Readonly<Record<Reason, string>> = {
  relay_first: "the session is new: the relay works at once, and direct paths are being tried",
  resumed: "the path was in use when this node's path choice started anew",
  no_candidates: "one side has offered no address that could be tried",
  no_common_family: "one side has only IPv4 and the other only IPv6 addresses",
  udp_blocked: "this network lets no UDP through",
  probing: "relayed while direct paths are being tried",
  probes_unanswered: "no direct path answers: both networks translate addresses, or a firewall drops UDP",
  direct_proved: "a direct path answers and costs no more",
  direct_faster: "a direct path is clearly faster",
  direct_slower_than_relay: "a direct path answers, but the relay is clearly faster",
  path_blackholed: "the path before went silent",
  path_failed: "the path before broke",
  network_changed: "this machine's addresses changed",
  peer_request: "the other side asked to leave the path before",
  peer_selected: "the client chose it",
  nothing_answers: "no path answers now; the last one is kept"
}

/** What to do about a session that stays relayed; undefined: nothing is wrong, or nothing can be done here. */
export const REMEDY: Readonly<Partial<Record<Reason, string>>> = {
  no_candidates: "see that neither side has path: relay in its configuration, and that both reach the relay's UDP port",
  no_common_family: "give both sides an address of one IP version",
  udp_blocked: "let UDP out of this network, at least to the relay's UDP port; sallyport netcheck says more",
  probes_unanswered:
    "run sallyport netcheck on both sides: a forwarded UDP port (udp: {port: N}) or IPv6 on one side mends it",
  nothing_answers: "see that the other side runs, and that this machine is online"
}
