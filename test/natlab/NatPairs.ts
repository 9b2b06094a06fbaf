/**
 * Which pairs of networks must reach each other directly: a reference model from how each of them maps and filters UDP (RFC 4787),
 * which knows nothing of the program. The lab's matrix is held against it.
 */
import type { Nat } from "./Lab.ts"

/** To peers a network that lets web traffic through is as one that lets TCP through. */
type NatSide = Exclude<Nat, "web443">
/** `cgn`: port-restricted twice, at the client. `same-nat`: both on one LAN. `v6-firewall`: symmetric in IPv4, a firewall in IPv6. */
export type Side = NatSide | "cgn" | "same-nat" | "v6-firewall"
export interface Pair {
  readonly client: Side
  readonly connector: Side
}

/** Under which address the packets of one socket appear: the same to all, another port for each destination, or any of a pool. */
type Mapping = "one" | "port-each" | "address-and-port-each"
/** Whose packets come in: everybody's, those of an address that was written to, or of an address and port. */
type Filtering = "open" | "by-address" | "by-port"
interface Behaviour {
  readonly mapping: Mapping
  readonly filtering: Filtering
}

/** Null: no UDP. */
const BEHAVIOUR: Readonly<Record<Side, Behaviour | null>> = {
  none: { mapping: "one", filtering: "open" },
  firewall: { mapping: "one", filtering: "by-port" },
  "full-cone": { mapping: "one", filtering: "open" },
  "addr-restricted": { mapping: "one", filtering: "by-address" },
  "port-restricted": { mapping: "one", filtering: "by-port" },
  "eim-apdf": { mapping: "one", filtering: "by-port" },
  symmetric: { mapping: "port-each", filtering: "by-port" },
  "symmetric-pool": { mapping: "address-and-port-each", filtering: "by-port" },
  "udp-blocked": null,
  tcp443: null,
  cgn: { mapping: "one", filtering: "by-port" },
  "same-nat": { mapping: "one", filtering: "open" },
  "v6-firewall": { mapping: "one", filtering: "by-port" }
}
const sides = Object.keys(BEHAVIOUR) as ReadonlyArray<Side>
const isNat = (side: Side): side is NatSide => side !== "cgn" && side !== "same-nat" && side !== "v6-firewall"
const nats = sides.filter(isNat)

/**
 * Best first. `guess`: one of 65,535 ports must be hit, which can be done by trying. `chance`: so must one address of a pool.
 * Where the model says `guess` or `chance`, the relay is good enough.
 */
const REACHES = ["direct", "guess", "chance", "relay"] as const
export type Reach = typeof REACHES[number]

/** Direct, as soon as one side's packets get in at the other: who receives them learns where to answer. */
export const expected = ({ client, connector }: Pair): Reach => {
  const [a, b] = [BEHAVIOUR[client], BEHAVIOUR[connector]]
  if (a === null || b === null) return "relay"
  return REACHES[Math.min(REACHES.indexOf(gettingIn(a, b)), REACHES.indexOf(gettingIn(b, a)))]!
}

/** Whether packets of `from` get in at `to`, which has written to the one address that it knows of `from`. */
const gettingIn = (from: Behaviour, to: Behaviour): Reach => {
  if (to.mapping !== "one") return "relay" // at which port nobody knows
  if (to.filtering === "open" || from.mapping === "one") return "direct"
  if (from.mapping === "address-and-port-each") return "chance"
  return to.filtering === "by-address" ? "direct" : "guess"
}

/** Whether `path` is what the model demands. A better one than expected is no miss. */
export const isMet = (reach: Reach, path: string): boolean =>
  path === "direct" || (reach !== "direct" && path.startsWith("relay-"))

/** By how both sides map: what decides how long finding a path takes. */
export const classOf = ({ client, connector }: Pair): string => `${mappingOf(client)} × ${mappingOf(connector)}`
const NAMES: Readonly<Record<Mapping, string>> = {
  one: "endpoint-independent",
  "port-each": "symmetric",
  "address-and-port-each": "symmetric-pool"
}
const mappingOf = (side: Side): string => {
  const behaviour = BEHAVIOUR[side]
  return behaviour === null ? "no UDP" : NAMES[behaviour.mapping]
}

export const nameOf = ({ client, connector }: Pair): string => `${client}×${connector}`

export const all: ReadonlyArray<Pair> = [
  ...[...nats, "cgn" as const].flatMap((client) => nats.map((connector) => ({ client, connector }))),
  { client: "same-nat", connector: "same-nat" },
  { client: "v6-firewall", connector: "v6-firewall" }
]

/** `a×b,c×*`, or with an `x`; a star stands for every side. `unknown`: what no pair is called. */
export const parse = (
  text: string
): { readonly pairs: ReadonlyArray<Pair>; readonly unknown: ReadonlyArray<string> } => {
  const wanted = text.split(",").map((one) => one.trim().split(/[×x]/))
  const found = wanted.map(([client, connector]) =>
    all.filter((pair) =>
      (client === "*" || client === pair.client) && (connector === "*" || connector === pair.connector)
    )
  )
  return {
    pairs: [...new Set(found.flat())],
    unknown: wanted.filter((_, i) => found[i]!.length === 0).map((one) => one.join("×"))
  }
}
