/** Metrics of a relay. */
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { RelayServer } from "./RelayServer.ts"

/** Reads the counters of `server` as metric families. */
export const read = ({ nodes, sessions, stats }: RelayServer): ReadonlyArray<Metrics.Family> => [
  Metrics.gauge({ name: "sallyport_relay_bound_nodes", help: "Nodes that are bound at the relay." }, one(nodes)),
  Metrics.gauge({ name: "sallyport_relay_sessions", help: "Sessions that at least one end has open." }, one(sessions)),
  Metrics.counter(
    { name: "sallyport_relay_bindings", help: "Bindings of nodes, by leg; one that is renewed counts again." },
    Metrics.each("leg", stats.bound)
  ),
  Metrics.counter(
    { name: "sallyport_relay_forwarded_packets", help: "Packets passed on between nodes." },
    one(stats.forwarded.packets)
  ),
  Metrics.counter(
    { name: "sallyport_relay_forwarded_bytes", unit: "bytes", help: "Bytes of these packets." },
    one(stats.forwarded.bytes)
  ),
  Metrics.counter(
    { name: "sallyport_relay_drops", help: "Reads, or runs of frames within one, that went nowhere, by cause." },
    Metrics.each("cause", stats.drops)
  ),
  Metrics.counter(
    { name: "sallyport_relay_refusals", help: "Bindings and sessions refused, by code." },
    Metrics.each("code", stats.refused)
  ),
  Metrics.counter(
    { name: "sallyport_relay_answers", help: "Requests answered without a binding, by kind." },
    Metrics.each("kind", stats.answered)
  )
]

const one = (value: number) => [{ labels: {}, value }]
