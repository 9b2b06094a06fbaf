/**
 * Bytes of flows and answers to flows, by resource. The labels are the names that administrators
 * gave (decision 21).
 */
import type { VerdictCode } from "../../protocol/flow/FlowWire.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { FlowMeter } from "../../transport/flow/FlowPump.ts"

/**
 * Most resources that are counted separately. Flows of further ones are counted together under
 * `OTHERS`.
 */
const MAX_RESOURCES = 256
/** Label of the remaining resources. No resource can have this name. */
const OTHERS = "*"

interface Counted {
  readonly meter: FlowMeter
  readonly verdicts: Metrics.Counts<VerdictCode>
}

export class ResourceMetrics {
  readonly #counted = new Map<string, Counted>()

  onFlow(resource: string, code: VerdictCode): void {
    this.#of(resource).verdicts.add(code)
  }

  /** Returns the meter for the flows of this resource. */
  meterOf(resource: string): FlowMeter {
    return this.#of(resource).meter
  }

  read(): ReadonlyArray<Metrics.Family> {
    const all = [...this.#counted]
    return [
      Metrics.counter(
        { name: "sallyport_resource_bytes", unit: "bytes", help: "Bytes of applications, by resource and direction." },
        all.flatMap(([resource, { meter }]) => this.#directions(resource, meter))
      ),
      Metrics.counter(
        { name: "sallyport_resource_flow_opens", help: "Flows that were asked for, by resource and answer." },
        all.flatMap(([resource, { verdicts }]) =>
          verdicts.points("code").map(({ labels, value }) => ({ labels: { ...labels, resource }, value }))
        )
      )
    ]
  }

  /**
   * Returns the points of one resource. `transmit` is towards the peer, as in
   * `sallyport_path_bytes`.
   */
  #directions(resource: string, { received, sent }: FlowMeter) {
    return [
      { labels: { resource, direction: "receive" }, value: received },
      { labels: { resource, direction: "transmit" }, value: sent }
    ]
  }

  #of(resource: string): Counted {
    const known = this.#counted.get(resource)
    if (known !== undefined) return known
    if (this.#counted.size >= MAX_RESOURCES && resource !== OTHERS) return this.#of(OTHERS)
    const made: Counted = { meter: { sent: 0, received: 0 }, verdicts: new Metrics.Counts() }
    this.#counted.set(resource, made)
    return made
  }
}
