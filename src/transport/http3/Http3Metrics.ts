/** Metrics of HTTP/3 at a relay. */
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { Http3Listener } from "./Http3Listener.ts"

export const read = ({ stats }: Http3Listener): ReadonlyArray<Metrics.Family> => [
  Metrics.gauge(
    { name: "sallyport_http3_connections", help: "Connections over HTTP/3, with a session and without." },
    [
      { labels: { session: "none" }, value: stats.strangers },
      { labels: { session: "open" }, value: stats.connections - stats.strangers }
    ]
  ),
  Metrics.counter(
    { name: "sallyport_http3_refusals", help: "Newcomers turned away or cut, by cause." },
    Metrics.each("cause", stats.refused)
  ),
  Metrics.counter(
    { name: "sallyport_http3_retries", help: "Newcomers that were asked to prove their address first." },
    [{ labels: {}, value: stats.retries }]
  )
]
