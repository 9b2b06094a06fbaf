/** What a node's data plane has sent and received, by how it travelled. Plain numbers, since they change for each packet. */
import type { PathKind } from "../../protocol/PathKind.ts"

/** Datagrams, or frames of a link, and their bytes without the heads of UDP and TLS. */
export class Traffic {
  packetsIn = 0
  bytesIn = 0
  packetsOut = 0
  bytesOut = 0
}

export type TrafficByKind = Readonly<Record<PathKind, Traffic>>

export const makeTraffic = (): TrafficByKind => ({
  direct: new Traffic(),
  webrtc: new Traffic(),
  "relay-udp": new Traffic(),
  "relay-h3": new Traffic(),
  "relay-tcp": new Traffic()
})
