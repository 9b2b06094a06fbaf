/**
 * How long a grant counts after its end for a node that reaches no directory. The end is set by the
 * grant's outage permit and by the connector's `offlineAccess`. While the directory is reached,
 * only the grant's own life counts, but for a moment after its return.
 */
import { DateTime } from "effect"
import type { Grant, Outage } from "./Documents.ts"

/** Whether a node reaches the directory, by its link to the home relay. */
export interface Reach {
  readonly reached: boolean
  /** When that last changed, in milliseconds of `HostClock`. */
  readonly sinceMs: number
}

/**
 * How long an expired grant still counts after the directory's return, in milliseconds. Its renewal
 * takes place meanwhile. This is twice the longest delay between two of a node's tries to connect,
 * because the client that renews the grant may come back later than the connector.
 */
export const RETURN_MS = 30_000

/** The state in which a grant is judged. */
export interface Situation {
  readonly reach: Reach
  /** Longest time since the grant's issue, in seconds. 0 if grants never count after their end. */
  readonly maxSeconds: number
  /** Present time of `HostClock`, in milliseconds. */
  readonly nowMs: number
  /** Present time of the directory's clock, in epoch seconds. */
  readonly nowSeconds: number
}

/**
 * Returns when the grant ends for a node that reaches no directory, in epoch seconds. That is its
 * own end if the permit is `null` or for another grant.
 */
export const endOf = (grant: Grant, permit: Outage | null, maxSeconds: number): number =>
  permit === null || permit.grant !== grant.id
    ? grant.expiresAt
    : Math.max(grant.expiresAt, Math.min(permit.expiresAt, grant.issuedAt + maxSeconds))

/** Whether a grant that has expired still counts. */
export const counts = (
  grant: Grant,
  permit: Outage | null,
  { maxSeconds, nowMs, nowSeconds, reach }: Situation
): boolean => nowSeconds < endOf(grant, permit, maxSeconds) && (!reach.reached || nowMs - reach.sinceMs < RETURN_MS)

/**
 * Returns a text for people about a node that reaches no directory. `since` is in milliseconds
 * since the epoch. `endsAt` is when its first session ends, in epoch seconds.
 */
export const text = ({ endsAt, since }: { readonly since: number; readonly endsAt: number }): string =>
  `no home relay has been reached since ${at(since)}; access goes on until ${at(endsAt * 1000)}`

const at = (ms: number): string =>
  DateTime.formatIso(DateTime.unsafeMake(Math.floor(ms / 1000) * 1000)).replace(".000", "")
