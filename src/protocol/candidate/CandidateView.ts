/** A candidate as people see it in `status` and `doctor`. */
import { Schema } from "effect"
import { renderHostPort } from "../bytes/SocketAddr.ts"
import type * as Candidate from "./Candidate.ts"
import { Use } from "./InterfaceUse.ts"

export const CandidateView = Schema.Struct({
  /** `IP:port`, with brackets around IPv6. */
  address: Schema.String,
  /**
   * Source of the address. `static`: from `udp.advertise`. `reflexive`: as a STUN server sees this
   * host.
   */
  kind: Schema.Literal("host", "reflexive", "port-mapped", "static"),
  /** Network interface that has the address. `null` if no interface of this host has it. */
  interface: Schema.NullOr(Schema.String),
  /** How this host uses that interface; see `InterfaceUse`. `null` if that does not apply. */
  use: Schema.NullOr(Use)
})
export type CandidateView = typeof CandidateView.Type

export const of = ({ address, kind, origin }: Candidate.Candidate): CandidateView => ({
  address: renderHostPort(address),
  kind: origin?.use === "static" ? "static" : kind === "srflx" || kind === "prflx" ? "reflexive" : kind,
  interface: origin?.interface ?? null,
  use: origin === undefined || origin.use === "static" ? null : origin.use
})

const USE: Readonly<Record<Use, string>> = {
  outward: "leads out",
  preferred: "preferred",
  lan: "LAN",
  loopback: "loopback",
  virtual: "containers",
  tunnel: "another VPN",
  excluded: "excluded"
}

/** Returns one line, such as `10.0.0.2:41641 (eth0, leads out)`. */
export const text = ({ address, interface: name, kind, use }: CandidateView): string =>
  name === null || use === null ? `${address} (${kind})` : `${address} (${name}, ${USE[use]})`
