/**
 * Findings about the network between this host and one STUN server, and what follows from them for
 * direct paths (RFC 4787, RFC 5780).
 */
import { Schema } from "effect"
import { familyOf, SocketAddr } from "../bytes/SocketAddr.ts"
import { Lifetime } from "./MappingLifetime.ts"
import * as PortMapping from "./PortMapping.ts"

/**
 * How a NAT's mapping or filtering depends on the peer's address (RFC 4787, sections 4.1 and 5).
 */
export const Dependence = Schema.Literal("endpoint-independent", "address-dependent", "address-and-port-dependent")
export type Dependence = typeof Dependence.Type

/** Schema of a finding. `reason` says why a value is unknown, and is `null` otherwise. */
const finding = <A extends string>(...values: ReadonlyArray<A>) =>
  Schema.Struct({ value: Schema.Literal(...values, "unknown"), reason: Schema.NullOr(Schema.String) })

/** A NAT's mapping or filtering. */
export const Behaviour = finding(...Dependence.literals)
export type Behaviour = typeof Behaviour.Type

/**
 * Whether two hosts behind the NAT reach each other at its outside address. `not-needed`: there is
 * no NAT.
 */
export const Hairpin = finding("works", "fails", "not-needed")
export type Hairpin = typeof Hairpin.Type

/** Outside ports that new sockets get (RFC 4787, section 4.2). */
export const Ports = Schema.Struct({
  value: Schema.Literal("preserving", "sequential", "random", "unknown"),
  /** Difference from one port to the next. `null` unless the ports are sequential. */
  delta: Schema.NullOr(Schema.Int),
  /** Number of sockets that got an answer. */
  samples: Schema.Int,
  reason: Schema.NullOr(Schema.String)
})
export type Ports = typeof Ports.Type

/** Findings about one IP version. */
export const NatReport = Schema.Struct({
  server: SocketAddr,
  udp: Schema.Literal("works", "blocked"),
  /**
   * Shortest round trip to the server, in ms. `null` if it was not measured, as when UDP is
   * blocked.
   */
  rttMs: Schema.NullOr(Schema.Number),
  /** Outside address of the first socket that asked. `null` if there was no answer. */
  mapped: Schema.NullOr(SocketAddr),
  /** All outside addresses that were seen. */
  publicHosts: Schema.Array(Schema.String),
  /** Whether there is a NAT. `null` if this host's own address is not known. */
  translated: Schema.NullOr(Schema.Boolean),
  mapping: Behaviour,
  filtering: Behaviour,
  hairpin: Hairpin,
  ports: Ports
})
export type NatReport = typeof NatReport.Type

/**
 * How many peers a direct path is expected with: all (`yes`), most (`likely`), some (`sometimes`)
 * or none (`no`).
 */
export const Direct = Schema.Struct({
  expected: Schema.Literal("yes", "likely", "sometimes", "no", "unknown"),
  why: Schema.String
})
/**
 * Share of peers with which a direct path is expected: all (`yes`), most (`likely`), some
 * (`sometimes`) or none (`no`).
 */
export type Direct = typeof Direct.Type

/**
 * Result of `netcheck`. The report of an IP version is `null` if this host or the server has no
 * address of it.
 */
export const NetReport = Schema.Struct({
  server: Schema.String,
  ipv4: Schema.NullOr(NatReport),
  ipv6: Schema.NullOr(NatReport),
  direct: Direct,
  /** Port mapping that the gateway offers. `null` if it was not asked. */
  portMapping: Schema.optionalWith(Schema.NullOr(PortMapping.Report), { default: () => null }),
  /**
   * How long an idle mapping lasts, as a running node found while it was idle. `null` if not known
   * (yet).
   */
  lifetime: Schema.optionalWith(Schema.NullOr(Lifetime), { default: () => null })
})
export type NetReport = typeof NetReport.Type

/** Makes the result of `netcheck` from the reports on each IP version. */
export const make = (
  server: string,
  reports: ReadonlyArray<NatReport>,
  portMapping: PortMapping.Report | null = null
): NetReport => {
  const ipv4 = reports.find((report) => familyOf(report.server.host) === 4) ?? null
  const ipv6 = reports.find((report) => familyOf(report.server.host) === 6) ?? null
  return {
    server,
    ipv4,
    ipv6,
    direct: best([directOf(ipv4, "IPv4"), directOf(ipv6, "IPv6")]),
    portMapping,
    lifetime: null
  }
}

const ORDER = ["yes", "likely", "sometimes", "unknown", "no"] as const

const best = (list: ReadonlyArray<Direct>): Direct =>
  [...list].sort((a, b) => ORDER.indexOf(a.expected) - ORDER.indexOf(b.expected))[0]!

/**
 * Says how far direct paths are to be expected over one IP version. In theory, two mappings that
 * stay the same open each other's filters, and a mapping that changes needs a peer that lets
 * everybody in.
 */
const directOf = (report: NatReport | null, version: string): Direct => {
  if (report === null) return { expected: "no", why: `no server was reached over ${version}` }
  if (report.udp === "blocked") {
    return {
      expected: "no",
      why: "UDP to the server gets no answer; if it is up, everything goes through the relay over TCP"
    }
  }
  const { filtering, mapping } = report
  if (mapping.value === "unknown") {
    return { expected: "unknown", why: `how ports are mapped is not known: ${mapping.reason ?? "no reason given"}` }
  }
  if (mapping.value !== "endpoint-independent") {
    return {
      expected: "sometimes",
      why:
        "the NAT uses a different port for each destination, so only peers that accept packets from any port are reached; " +
        "the relay carries the rest"
    }
  }
  switch (filtering.value) {
    case "endpoint-independent":
      return { expected: "yes", why: "anyone who knows the public address can reach this host" }
    case "address-dependent":
      return { expected: "yes", why: "one public port for all peers, open to each address that this host has sent to" }
    case "address-and-port-dependent":
    case "unknown":
      return {
        expected: "likely",
        why: "one public port for all peers; only peers whose own port changes with each destination need the relay"
      }
  }
}
