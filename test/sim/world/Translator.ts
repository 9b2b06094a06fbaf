/** A network address translator for UDP as RFC 4787 describes it: how it maps, filters, allots ports and forgets. */
import type { SocketAddr } from "../../../src/protocol/bytes/SocketAddr.ts"
import type { Dependence } from "../../../src/protocol/nat/NatReport.ts"
import type { Random } from "./Random.ts"

export type Allocation = { readonly kind: "preserving" | "random" } | {
  readonly kind: "sequential"
  readonly delta: number
}
export interface Nat {
  readonly mapping: Dependence
  readonly filtering: Dependence
  readonly allocation: Allocation
  readonly hairpin: boolean
  /** How many outside addresses it takes in turn. */
  readonly pool: number
}

interface Mapping {
  readonly key: string
  readonly local: number
  readonly outside: SocketAddr
  readonly sentTo: Set<string>
  usedAt: number
}

export interface Options {
  readonly nat: Nat
  /** The outside address that is `n`-th of the pool. */
  readonly host: (n: number) => string
  readonly random: Random
  /** Ms. */
  readonly now?: () => number
  /** What is not used outwards for so long is forgotten (RFC 4787, section 4.3), ms. */
  readonly lifetimeMs?: number
}

export class Translator {
  readonly #options: Required<Options>
  readonly #byFlow = new Map<string, Mapping>()
  readonly #byOutside = new Map<string, Mapping>()
  #counter = 20_000
  #turn = 0

  constructor(options: Options) {
    this.#options = { now: () => 0, lifetimeMs: Infinity, ...options }
  }

  /** As what leaves from this inside port appears outside. */
  out(local: number, to: SocketAddr): SocketAddr {
    const { nat, now } = this.#options
    const by = nat.mapping
    const key = by === "endpoint-independent"
      ? `${local}`
      : by === "address-dependent"
      ? `${local}|${to.host}`
      : `${local}|${to.host}|${to.port}`
    const mapping = this.#fresh(this.#byFlow.get(key)) ?? this.#map(key, local)
    mapping.usedAt = now()
    mapping.sentTo.add(nat.filtering === "address-and-port-dependent" ? `${to.host}|${to.port}` : to.host)
    return mapping.outside
  }

  /** The inside port of what arrives at an outside address of it; undefined: it is not let in. */
  in(to: SocketAddr, from: SocketAddr): number | undefined {
    const mapping = this.#fresh(this.#byOutside.get(`${to.host}|${to.port}`))
    if (mapping === undefined) return undefined
    const by = this.#options.nat.filtering
    if (by === "endpoint-independent") return mapping.local
    return mapping.sentTo.has(by === "address-dependent" ? from.host : `${from.host}|${from.port}`)
      ? mapping.local
      : undefined
  }

  /** It was started anew. */
  loseMappings(): void {
    this.#byFlow.clear()
    this.#byOutside.clear()
    this.#counter += 7_919
  }

  #map(key: string, local: number): Mapping {
    const host = this.#options.host(this.#turn++ % this.#options.nat.pool)
    let port = this.#port(host, local)
    while (this.#byOutside.has(`${host}|${port}`)) port = this.#port(host, local)
    const mapping = { key, local, outside: { host, port }, sentTo: new Set<string>(), usedAt: 0 }
    this.#byFlow.set(key, mapping)
    this.#byOutside.set(`${host}|${port}`, mapping)
    return mapping
  }

  #port(host: string, local: number): number {
    const { nat: { allocation }, random } = this.#options
    if (allocation.kind === "sequential") {
      this.#counter = 1_024 + (this.#counter + allocation.delta - 1_024 + 64_512) % 64_512
      return this.#counter
    }
    if (allocation.kind === "preserving" && !this.#byOutside.has(`${host}|${local}`)) return local
    return 1_024 + Math.floor(random() * 64_512)
  }

  #fresh(mapping: Mapping | undefined): Mapping | undefined {
    if (mapping === undefined || this.#options.now() - mapping.usedAt <= this.#options.lifetimeMs) return mapping
    this.#byFlow.delete(mapping.key)
    this.#byOutside.delete(`${mapping.outside.host}|${mapping.outside.port}`)
    return undefined
  }
}
