/**
 * Counts programs that speak another protocol to the SOCKS listener, and logs them now and then.
 */
import { Effect } from "effect"
import type { FailReason } from "../../protocol/flow/Socks5.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"

/** Shortest time between two log lines about the same mistake. */
const LOG_EVERY_MS = 10 * 60_000

const WHAT: Readonly<Record<FailReason, string>> = {
  http: "a program took the SOCKS listener for an HTTP proxy or a web server; set it to SOCKS5 (socks5h://)",
  tls: "a program spoke TLS to the SOCKS listener; set it to SOCKS5 (socks5h://), without TLS to the proxy",
  version: "a program spoke neither SOCKS5 nor SOCKS4 to the SOCKS listener; set it to SOCKS5",
  method: "a program insisted on a user name and password at the SOCKS listener, which asks for none; leave them out",
  command: "a program asked the SOCKS listener for BIND or UDP ASSOCIATE; only TCP connections (CONNECT) are supported",
  address: "a program asked the SOCKS listener for something that is neither a name nor an address",
  too_long: "a program sent the SOCKS listener a request that is too long; set it to SOCKS5"
}

export class ForeignPrograms {
  readonly #counts = new Metrics.Counts<FailReason>()
  readonly #loggedAt = new Map<FailReason, number>()

  /**
   * Counts a refused connection. The effect logs it, unless the same mistake was logged less than
   * `LOG_EVERY_MS` ago.
   */
  onForeign(reason: FailReason, address: string, nowMs: number): Effect.Effect<void> {
    this.#counts.add(reason)
    const last = this.#loggedAt.get(reason)
    if (last !== undefined && nowMs - last < LOG_EVERY_MS) return Effect.void
    this.#loggedAt.set(reason, nowMs)
    return Effect.logWarning(WHAT[reason]).pipe(Effect.annotateLogs({ address }))
  }

  read(): ReadonlyArray<Metrics.Family> {
    return [
      Metrics.counter(
        {
          name: "sallyport_socks_refusals",
          help: "Connections to the SOCKS listener that were no SOCKS, by what they were."
        },
        this.#counts.points("reason")
      )
    ]
  }
}
