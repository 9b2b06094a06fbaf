/** Counters of a relay. They are plain numbers, because they change with each packet. */
import { type Refusal, REFUSALS } from "../../protocol/relay/RelayWire.ts"

/** Counters since the start of the relay. */
export interface Stats {
  /** Relayed frames that were sent on. */
  readonly forwarded: { packets: number; bytes: number }
  /** Requests that were answered: STUN requests, and requests for a cookie. */
  readonly answered: { stun: number; cookies: number }
  /** Successful bindings of nodes, over UDP and over links. */
  readonly bound: { udp: number; link: number }
  /** Dropped reads, or dropped runs of frames within one read, by cause. */
  readonly drops: {
    /** Drops because the bytes are neither a valid frame nor a valid message. */
    malformed: number
    /** Drops because the tag belongs to no session. */
    unknownTag: number
    /** Drops because the owner of the tag is bound with another 5-tuple or link. */
    foreignSource: number
    /** Drops because one end has not opened the session. */
    notOpen: number
    /** Drops because the receiver, or the sender of a control message, has no leg. */
    unbound: number
    /** Drops because the node exceeded its rate. */
    rateLimited: number
    /** Drops because too many bytes wait in the receiver's link. */
    linkFull: number
    /** Drops because the sender's prefix, or a bound node's control messages, exceeded the rate. */
    overRate: number
    /** Drops because the answer would have been longer than its request. */
    tooShort: number
  }
  /** Refused requests, by the code of the refusal. */
  readonly refused: Record<Refusal, number>
}

/** Creates the counters, all zero. */
export const makeStats = (): Stats => ({
  forwarded: { packets: 0, bytes: 0 },
  answered: { stun: 0, cookies: 0 },
  bound: { udp: 0, link: 0 },
  drops: {
    malformed: 0,
    unknownTag: 0,
    foreignSource: 0,
    notOpen: 0,
    unbound: 0,
    rateLimited: 0,
    linkFull: 0,
    overRate: 0,
    tooShort: 0
  },
  refused: Object.fromEntries(REFUSALS.map((code) => [code, 0])) as Record<Refusal, number>
})
