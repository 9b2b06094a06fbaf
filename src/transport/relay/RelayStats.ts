/** What a relay counts. Plain numbers, since they change for each packet. */
import { type Refusal, REFUSALS } from "../../protocol/RelayWire.ts"

export interface Stats {
  readonly forwarded: { packets: number; bytes: number }
  readonly answered: { stun: number; cookies: number }
  readonly bound: { udp: number; link: number }
  /** Reads, or runs of frames within one, that went nowhere. */
  readonly drops: {
    /** No frame or message of ours. */
    malformed: number
    /** Under a tag that no session has. */
    unknownTag: number
    /** Under a tag whose owner is bound by another 5-tuple or link. */
    foreignSource: number
    /** One end has not opened the session. */
    notOpen: number
    /** The receiver, or the sender of a control message, has no leg. */
    unbound: number
    /** The node sent more than its rate. */
    rateLimited: number
    /** The receiver's link has too much waiting. */
    linkFull: number
    /** The sender's prefix asked too often. */
    overRate: number
    /** An answer would have been longer than its request. */
    tooShort: number
  }
  readonly refused: Record<Refusal, number>
}

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
