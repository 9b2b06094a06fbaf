/**
 * The lines above the peers in `sallyport status`: this node, its relay, and the resources that it
 * may use.
 */
import { Schema } from "effect"
import { PortRange } from "../../protocol/trust/Documents.ts"
import * as Outage from "../../protocol/trust/Outage.ts"
import { colour } from "./Table.ts"

const Self = Schema.Struct({
  role: Schema.String,
  name: Schema.String,
  network: Schema.NullOr(Schema.String),
  relay: Schema.NullOr(Schema.String)
})
const Signaling = Schema.Struct({
  state: Schema.String,
  carrier: Schema.NullOr(Schema.String),
  relay: Schema.String,
  problem: Schema.String,
  proxy: Schema.optional(Schema.NullOr(Schema.String))
})
const Leg = Schema.Struct({ kind: Schema.NullOr(Schema.String), reason: Schema.String })

/**
 * The parts of `/v1/status` that are shown here. Each is optional, because roles report different
 * ones.
 */
export const Head = Schema.Struct({
  self: Schema.optional(Self),
  signaling: Schema.optional(Schema.NullOr(Signaling)),
  leg: Schema.optional(Schema.NullOr(Leg)),
  outage: Schema.optional(
    Schema.NullOr(Schema.Struct({ since: Schema.Number, endsAt: Schema.Number }))
  ),
  nodes: Schema.optional(Schema.Array(Schema.Unknown)),
  draining: Schema.optional(Schema.NullOr(Schema.Struct({ flows: Schema.Number }))),
  stopping: Schema.optional(Schema.Boolean),
  restartNeeded: Schema.optional(Schema.Array(Schema.String)),
  stateTrouble: Schema.optional(Schema.NullOr(Schema.Struct({ message: Schema.String }))),
  reloadProblem: Schema.optional(Schema.NullOr(Schema.String)),
  descriptors: Schema.optional(
    Schema.NullOr(Schema.Struct({ open: Schema.Number, limit: Schema.NullOr(Schema.Number) }))
  ),
  refusals: Schema.optional(
    Schema.Array(
      Schema.Struct({
        host: Schema.String,
        port: Schema.Number,
        forward: Schema.optional(Schema.NullOr(Schema.String)),
        code: Schema.String,
        why: Schema.String,
        count: Schema.Number
      })
    )
  ),
  limits: Schema.optional(
    Schema.NullOr(Schema.Struct({ flows: Schema.Number, flowsPerClient: Schema.optional(Schema.Number) }))
  )
})
export type Head = typeof Head.Type

/** Most lines about forwards that reset connections. `doctor` and `status --json` have all. */
const MAX_RESETS = 5

/** The parts of the answer of `/v1/resources` that are shown here. */
export const Resources = Schema.Array(
  Schema.Struct({ name: Schema.String, address: Schema.String, tcp: Schema.Array(PortRange) })
)
export type Resources = typeof Resources.Type

const GREEN = 32
const RED = 31
const YELLOW = 33

/**
 * Renders the lines. Returns none if the status does not say whose it is. `resources` is `null` if
 * they are not known or if this is not a client.
 */
export const render = (head: Head, resources: Resources | null, colours: boolean): ReadonlyArray<string> => {
  const { nodes, outage, reloadProblem, restartNeeded = [], self, stateTrouble } = head
  if (self === undefined) return []
  const role = self.role === "forwarder" ? "second relay" : self.role
  const who = `${role} ${self.name}${self.network === null ? "" : ` of network ${self.network}`}`
  const lines = [[who, relayLine(head, colours)].filter((part) => part !== "").join(", ")]
  if (outage) lines.push(colour(colours, YELLOW, Outage.text(outage)))
  if (nodes !== undefined) lines.push(`${nodes.length} ${nodes.length === 1 ? "node is" : "nodes are"} connected`)
  if (resources !== null) {
    lines.push(
      resources.length === 0
        ? "may use: nothing; an access rule at the relay says what"
        : `may use: ${resources.map(nameOf).join(", ")}`
    )
  }
  lines.push(...drainLine(head, colours), ...limitLine(head), ...resetLines(head, colours))
  if (stateTrouble) {
    lines.push(colour(colours, YELLOW, `the state directory cannot be written: ${stateTrouble.message}`))
  }
  if (reloadProblem) {
    lines.push(colour(colours, YELLOW, `the configuration was not reloaded: ${reloadProblem}`))
  }
  if (restartNeeded.length > 0) {
    lines.push(colour(colours, YELLOW, `restart sallyport for the changed keys: ${restartNeeded.join(", ")}`))
  }
  return lines
}

const drainLine = ({ draining, stopping = false }: Head, colours: boolean): ReadonlyArray<string> => {
  if (!draining) return []
  const open = `${draining.flows} ${draining.flows === 1 ? "flow" : "flows"} open`
  return [
    colour(
      colours,
      YELLOW,
      stopping ? `stopping, ${open}` : `draining, ${open}; sallyport drain --cancel makes it take new flows again`
    )
  ]
}

const limitLine = ({ descriptors, limits }: Head): ReadonlyArray<string> => {
  if (!descriptors) return []
  const flows = limits
    ? `; at most ${limits.flows} flows` +
      (limits.flowsPerClient === undefined ? "" : `, ${limits.flowsPerClient} of one client`)
    : ""
  return [`${descriptors.open} of ${descriptors.limit ?? "any number of"} files and sockets are open${flows}`]
}

const resetLines = ({ refusals = [] }: Head, colours: boolean): ReadonlyArray<string> =>
  refusals.filter(({ forward = null }) => forward !== null).slice(0, MAX_RESETS).map(
    ({ code, count, forward, host, port, why }) => {
      const times = count === 1 ? "a connection" : `${count} connections`
      const because = `${code}${why === "" ? "" : `, ${why}`}`
      return colour(
        colours,
        YELLOW,
        `the forward ${forward} to ${host}:${port} reset ${times} in the last 10 minutes: ${because}`
      )
    }
  )

const relayLine = ({ leg, signaling }: Head, colours: boolean): string => {
  if (!signaling) return ""
  const { carrier, problem, relay: place, state } = signaling
  const relay = signaling.proxy ? `${place} (by the proxy ${signaling.proxy})` : place
  if (state !== "up") {
    return colour(colours, RED, `relay ${relay} is not reached (${state}): ${problem || "no answer yet"}`)
  }
  const packets = leg?.kind ?? null
  return packets === null
    ? colour(
      colours,
      YELLOW,
      `relay ${relay} is reached by ${carrier ?? "?"}, but relays no packets: ${leg?.reason ?? "?"}`
    )
    : colour(colours, GREEN, `relay ${relay} is reached by ${carrier ?? "?"}, packets by ${packets}`)
}

const nameOf = ({ name, tcp }: Resources[number]): string =>
  `${name} (tcp ${tcp.map(({ from, to }) => from === to ? String(from) : `${from}-${to}`).join(", ")})`
