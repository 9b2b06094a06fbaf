/** What one STUN server can tell about the way from here to the Internet, and what follows for direct paths (RFC 4787, RFC 5780). */
import { Schema } from "effect"
import { Lifetime } from "./MappingLifetime.ts"
import * as PortMapping from "./PortMapping.ts"
import { SocketAddr } from "./SocketAddr.ts"

/** RFC 4787, sections 4.1 and 5: on what the mapped port depends, or from whom packets are let in. */
export const Dependence = Schema.Literal("endpoint-independent", "address-dependent", "address-and-port-dependent")
export type Dependence = typeof Dependence.Type

/** `reason` says why a value is unknown, and is null otherwise. */
const finding = <A extends string>(...values: ReadonlyArray<A>) =>
  Schema.Struct({ value: Schema.Literal(...values, "unknown"), reason: Schema.NullOr(Schema.String) })

export const Behaviour = finding(...Dependence.literals)
export type Behaviour = typeof Behaviour.Type

/** Whether two hosts behind the translator reach each other at its outside. `not-needed`: nothing is translated. */
export const Hairpin = finding("works", "fails", "not-needed")
export type Hairpin = typeof Hairpin.Type

/** Which outside ports new sockets get (RFC 4787, section 4.2). */
export const Ports = Schema.Struct({
  value: Schema.Literal("preserving", "sequential", "random", "unknown"),
  /** From one port to the next; null unless sequential. */
  delta: Schema.NullOr(Schema.Int),
  samples: Schema.Int,
  reason: Schema.NullOr(Schema.String)
})
export type Ports = typeof Ports.Type

/** About one IP version. */
export const NatReport = Schema.Struct({
  server: SocketAddr,
  udp: Schema.Literal("works", "blocked"),
  /** Least round trip to the server; null where UDP is blocked. */
  rttMs: Schema.NullOr(Schema.Number),
  /** Of a socket that asked the server first. */
  mapped: Schema.NullOr(SocketAddr),
  /** All outside addresses seen. */
  publicHosts: Schema.Array(Schema.String),
  /** Null where this host's own address is not known. */
  translated: Schema.NullOr(Schema.Boolean),
  mapping: Behaviour,
  filtering: Behaviour,
  hairpin: Hairpin,
  ports: Ports
})
export type NatReport = typeof NatReport.Type

/** How far direct paths are to be expected: with every peer, with most, with some, with none. */
export const Direct = Schema.Struct({
  expected: Schema.Literal("yes", "likely", "sometimes", "no", "unknown"),
  why: Schema.String
})
export type Direct = typeof Direct.Type

/** Null: this host has no address of that IP version, or the server has none. */
export const NetReport = Schema.Struct({
  server: Schema.String,
  ipv4: Schema.NullOr(NatReport),
  ipv6: Schema.NullOr(NatReport),
  direct: Direct,
  /** What the gateway would map; null: not asked. */
  portMapping: Schema.optionalWith(Schema.NullOr(PortMapping.Report), { default: () => null }),
  /** How long an idle mapping lasts, as a running node found while it was idle; null: not (yet). */
  lifetime: Schema.optionalWith(Schema.NullOr(Lifetime), { default: () => null })
})
export type NetReport = typeof NetReport.Type

export const make = (
  server: string,
  reports: ReadonlyArray<NatReport>,
  portMapping: PortMapping.Report | null = null
): NetReport => {
  const ipv4 = reports.find((report) => !report.server.host.includes(":")) ?? null
  const ipv6 = reports.find((report) => report.server.host.includes(":")) ?? null
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

/** By theory: two mappings that stay open each other's way; one that moves needs a peer that lets everybody in. */
const directOf = (report: NatReport | null, version: string): Direct => {
  if (report === null) return { expected: "no", why: `${version} leads to no server` }
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
      why: "every destination sees another port, so only peers that let in packets from any port can be reached; " +
        "the relay carries the rest"
    }
  }
  switch (filtering.value) {
    case "endpoint-independent":
      return { expected: "yes", why: "whoever knows the public address reaches it" }
    case "address-dependent":
      return { expected: "yes", why: "one public port for all peers, open to each address that was written to" }
    case "address-and-port-dependent":
    case "unknown":
      return {
        expected: "likely",
        why: "one public port for all peers; only peers whose own port changes with each destination need the relay"
      }
  }
}
