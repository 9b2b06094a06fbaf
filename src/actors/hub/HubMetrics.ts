/** Metrics of the relay's signaling. */
import type { NodeRole } from "../../protocol/trust/Documents.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { DialCode } from "../signaling/RelaySignalingRpcs.ts"
import type { Link } from "./Board.ts"

/** Metrics of the relay's signaling: dials and messages. */
export class HubMetrics {
  readonly #dials = new Metrics.Counts<DialCode | "accepted">()
  readonly #messages = new Metrics.Counts<"passed" | "too_often">()

  onDial(code: DialCode | "accepted"): void {
    this.#dials.add(code)
  }

  onMessage(passes: boolean): void {
    this.#messages.add(passes ? "passed" : "too_often")
  }

  read(links: Iterable<Link>): ReadonlyArray<Metrics.Family> {
    const roles = new Metrics.Counts<NodeRole>()
    for (const role of ["client", "connector"] as const) roles.add(role, 0)
    for (const { member } of links) roles.add(member.role)
    return [
      Metrics.gauge(
        { name: "sallyport_signaling_nodes", help: "Nodes that are connected by signaling, by role." },
        roles.points("role")
      ),
      Metrics.counter(
        { name: "sallyport_signaling_dials", help: "Sessions that clients asked for, by the answer." },
        this.#dials.points("code")
      ),
      Metrics.counter(
        {
          name: "sallyport_signaling_messages",
          help: "Sealed messages of nodes for each other, passed on or dropped as too many."
        },
        this.#messages.points("outcome")
      )
    ]
  }
}
