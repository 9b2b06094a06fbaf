/**
 * Counters of the packets that a node's data plane sent and received, by kind of path. They are
 * plain numbers because they change with each packet.
 */
import { type PathKind, perKind } from "../../protocol/path/PathKind.ts"

/**
 * Counters of datagrams, or of frames on a link, and of their bytes without the headers of UDP and
 * TLS.
 */
export class Traffic {
  /** Datagrams or frames received. */
  packetsIn = 0
  /** Bytes received. */
  bytesIn = 0
  /** Datagrams or frames sent. */
  packetsOut = 0
  /** Bytes sent. */
  bytesOut = 0
}

export type TrafficByKind = Readonly<Record<PathKind, Traffic>>

export const makeTraffic = (): TrafficByKind => perKind(() => new Traffic())
