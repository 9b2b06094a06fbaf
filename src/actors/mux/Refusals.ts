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
/** Age at which `recent` leaves out a kind of refusal. */
const RECENT_MS = 10 * 60_000

/** A flow that was not opened. */
export interface Refused {
  /** Host for which the application asked. */
  readonly host: string
  readonly port: number
  /** Name of the other end. `null` if the flow never had a session. */
  readonly peer: string | null
  readonly verdict: Verdict
}

interface Kept {
  refusal: Refusal
  loggedAt: number
  /** Refusals of this kind since it was last logged. */
  unlogged: number
}

/** Recent refusals, counted by kind: target, peer, code and reason. */
export class Refusals {
  readonly #kept = new Map<string, Kept>()

  /**
   * Counts a refusal. The effect logs the first of its kind at level info, with the number of those
   * that were not logged.
   */
  onRefused({ host, peer, port, verdict }: Refused, nowMs: number): Effect.Effect<void> {
    const { code, reason: why } = verdict
    const key = JSON.stringify([host, port, peer, code, why])
    const known = this.#kept.get(key)
    const count = (known?.refusal.count ?? 0) + 1
    const refusal: Refusal = { host, port, peer, code, why, count, at: nowMs }
    const isNews = known === undefined || nowMs - known.loggedAt >= LOG_EVERY_MS
    const unlogged = isNews ? 0 : known.unlogged + 1
    this.#kept.delete(key)
    this.#kept.set(key, { refusal, loggedAt: isNews ? nowMs : known.loggedAt, unlogged })
    const [oldest] = this.#kept.keys()
    if (oldest !== undefined && this.#kept.size > MAX_KINDS) this.#kept.delete(oldest)
    return logged(refusal, isNews, known?.unlogged ?? 0)
  }

  /** Returns the recent refusals, newest first. */
  recent(nowMs: number): ReadonlyArray<Refusal> {
    return Array.from(this.#kept.values(), ({ refusal }) => refusal)
      .filter(({ at }) => nowMs - at < RECENT_MS)
      .toReversed()
  }
}

const logged = ({ code, host, peer, port, why }: Refusal, isNews: boolean, unlogged: number): Effect.Effect<void> =>
  (isNews ? Effect.logInfo("flow refused") : Effect.logDebug("flow refused")).pipe(
    Effect.annotateLogs({
      host,
      port,
      ...(peer !== null && { peer }),
      verdict: code,
      why,
      ...(isNews && unlogged > 0 && { alsoNotLogged: unlogged })
    })
  )
