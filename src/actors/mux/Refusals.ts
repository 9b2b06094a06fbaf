/**
 * Flows that were not opened, and why. The log, `status` and `doctor` report them, at both ends of
 * a session.
 */
import { Effect } from "effect"
import type { Verdict } from "../../protocol/flow/FlowWire.ts"
import type { Refusal } from "./StreamMuxRpcs.ts"

/**
 * Most kinds of refusals that are kept. When it is full, the kind that was seen longest ago is
 * dropped.
 */
const MAX_KINDS = 64
/**
 * Shortest time between two log lines about the same kind, so that a busy application cannot fill
 * the log.
 */
const LOG_EVERY_MS = 60_000
/** Age at which `recent` leaves out a refusal, in minutes. */
const RECENT_MINUTES = 10
const MINUTE_MS = 60_000

/** A flow that was not opened. */
export interface Refused {
  /** Host for which the application asked. */
  readonly host: string
  readonly port: number
  /** Address of the forward that accepted the connection. Absent if it came another way. */
  readonly forward?: string | null
  /** Name of the other end. `null` if the flow never had a session. */
  readonly peer: string | null
  readonly verdict: Verdict
}

interface Kept {
  refusal: Refusal
  /** Refusals in each recent minute, by the minute's number. */
  readonly minutes: Map<number, number>
  loggedAt: number
  /** Refusals of this kind since it was last logged. */
  unlogged: number
}

/** Recent refusals, counted by kind: target, forward, peer, code and reason. */
export class Refusals {
  readonly #kept = new Map<string, Kept>()

  /**
   * Counts a refusal. The effect logs the first of its kind at level info, with the number of those
   * that were not logged.
   */
  onRefused({ forward = null, host, peer, port, verdict }: Refused, nowMs: number): Effect.Effect<void> {
    const { code, reason: why } = verdict
    const key = JSON.stringify([host, port, forward, peer, code, why])
    const known = this.#kept.get(key)
    const minutes = known?.minutes ?? new Map<number, number>()
    const minute = Math.floor(nowMs / MINUTE_MS)
    minutes.set(minute, (minutes.get(minute) ?? 0) + 1)
    const count = recentOf(minutes, nowMs)
    const refusal: Refusal = { host, port, forward, peer, code, why, count, at: nowMs }
    const isNews = known === undefined || nowMs - known.loggedAt >= LOG_EVERY_MS
    const unlogged = isNews ? 0 : known.unlogged + 1
    this.#kept.delete(key)
    this.#kept.set(key, { refusal, minutes, loggedAt: isNews ? nowMs : known.loggedAt, unlogged })
    const [oldest] = this.#kept.keys()
    if (oldest !== undefined && this.#kept.size > MAX_KINDS) this.#kept.delete(oldest)
    return logged(refusal, isNews, known?.unlogged ?? 0)
  }

  /** Returns the recent refusals, newest first. */
  recent(nowMs: number): ReadonlyArray<Refusal> {
    return Array.from(this.#kept.values(), ({ minutes, refusal }) => ({ ...refusal, count: recentOf(minutes, nowMs) }))
      .filter(({ count }) => count > 0)
      .toReversed()
  }
}

/** Forgets the minutes that are no longer recent. Returns the refusals of the others. */
const recentOf = (minutes: Map<number, number>, nowMs: number): number => {
  const oldest = Math.floor(nowMs / MINUTE_MS) - RECENT_MINUTES
  for (const minute of minutes.keys()) if (minute <= oldest) minutes.delete(minute)
  return Array.from(minutes.values()).reduce((sum, count) => sum + count, 0)
}

const logged = (
  { code, forward, host, peer, port, why }: Refusal,
  isNews: boolean,
  unlogged: number
): Effect.Effect<void> =>
  (isNews ? Effect.logInfo("flow refused") : Effect.logDebug("flow refused")).pipe(
    Effect.annotateLogs({
      host,
      port,
      ...(forward !== null && { forward }),
      ...(peer !== null && { peer }),
      verdict: code,
      why,
      ...(isNews && unlogged > 0 && { alsoNotLogged: unlogged })
    })
  )
