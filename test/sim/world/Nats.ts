/** The kinds of network that nodes of the simulation are in, by the names that the lab gives them. */
import type { Side } from "../../natlab/NatPairs.ts"
import type { Allocation, Nat } from "./Translator.ts"

const nat = (
  mapping: Nat["mapping"],
  filtering: Nat["filtering"],
  allocation: Allocation = { kind: "preserving" },
  pool = 1
): Nat => ({ mapping, filtering, allocation, hairpin: false, pool })

/** Null: UDP does not pass. */
export const NATS = {
  none: nat("endpoint-independent", "endpoint-independent"),
  firewall: nat("endpoint-independent", "address-and-port-dependent"),
  "full-cone": nat("endpoint-independent", "endpoint-independent", { kind: "random" }),
  "addr-restricted": nat("endpoint-independent", "address-dependent"),
  "port-restricted": nat("endpoint-independent", "address-and-port-dependent"),
  "eim-apdf": nat("endpoint-independent", "address-and-port-dependent", { kind: "random" }),
  symmetric: nat("address-and-port-dependent", "address-and-port-dependent", { kind: "random" }),
  "symmetric-pool": nat("address-and-port-dependent", "address-and-port-dependent", { kind: "random" }, 4),
  "udp-blocked": null
} as const satisfies Partial<Record<Side, Nat | null>>

export type NatName = keyof typeof NATS
export const NAT_NAMES = Object.keys(NATS) as ReadonlyArray<NatName>
