/** Metrics of a TURN server. */
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { TurnServer } from "./TurnServer.ts"

/** Reads the counters of `server` as metric families. */
export const read = ({ allocations, stats }: TurnServer): ReadonlyArray<Metrics.Family> => {
  const each = (read: (way: { readonly packets: number; readonly bytes: number }) => number) => [
    { labels: { direction: "to_peers" }, value: read(stats.toPeers) },
    { labels: { direction: "to_clients" }, value: read(stats.toClients) }
  ]
  return [
    Metrics.gauge(
      { name: "sallyport_turn_allocations", help: "Relayed addresses that are lent now." },
      [{ labels: {}, value: allocations }]
    ),
    Metrics.counter(
      { name: "sallyport_turn_allocations_made", help: "Relayed addresses that were ever lent." },
      [{ labels: {}, value: stats.allocations.made }]
    ),
    Metrics.counter(
      { name: "sallyport_turn_packets", help: "Packets passed on, by direction." },
      each((it) => it.packets)
    ),
    Metrics.counter(
      { name: "sallyport_turn_bytes", unit: "bytes", help: "Bytes of these packets." },
      each((it) => it.bytes)
    ),
    Metrics.counter(
      { name: "sallyport_turn_refusals", help: "Requests refused, by error code (RFC 8656, section 18)." },
      Metrics.each("code", stats.refused)
    ),
    Metrics.counter(
      { name: "sallyport_turn_drops", help: "What was left unanswered or went nowhere, by cause." },
      Metrics.each("cause", stats.drops)
    )
  ]
}
