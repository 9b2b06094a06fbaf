/** A host of the simulation: in which network it is, behind which translator. */
import type { Role } from "../../../src/protocol/path/PathRef.ts"
import { type NatName, NATS } from "./Nats.ts"
import type { Random } from "./Random.ts"
import { type Nat, Translator } from "./Translator.ts"

/** A network that a host can be in. */
export interface Place {
  readonly nat: NatName | Nat
  /** From the host to the middle of the Internet, ms. */
  readonly delayMs: number
  /** After which its translator forgets a mapping, ms. */
  readonly lifetimeMs?: number
}

const FIRST_PORT = 40_000
const LIFETIME_MS = 120_000

export class Host {
  readonly role: Role
  readonly #random: Random
  protected readonly now: () => number
  place!: Place
  /** Null: UDP does not pass. */
  translator: Translator | null = null
  /** Its own address in the network. */
  inside = ""
  #networks = 0
  #places = 0
  #nextPort = FIRST_PORT
  /** Of its usual socket. */
  port = 0
  /** Nothing comes or goes until then. */
  downUntil = 0
  /** It does nothing until then. */
  asleepUntil = 0

  constructor(role: Role, place: Place, random: Random, now: () => number) {
    this.role = role
    this.#random = random
    this.now = now
    this.#enter(place)
  }

  /** To another network, whose outside addresses nobody has had before. */
  move(place: Place): void {
    this.#enter(place)
  }

  #enter(place: Place): void {
    this.place = place
    this.inside = `10.${this.role === "client" ? 1 : 2}.${this.#networks++ % 250}.2`
    this.port = this.freePort()
    this.replaceTranslator()
  }

  /** Another outside address where the host is. */
  replaceTranslator(): void {
    const { lifetimeMs = LIFETIME_MS, nat } = this.place
    const behaviour = typeof nat === "string" ? NATS[nat] : nat
    const n = this.#places++
    const net = this.role === "client" ? "198.51" : "203.0"
    this.translator = behaviour === null ? null : new Translator({
      nat: behaviour,
      host: (of) => `${net}.${n % 200}.${10 + of}`,
      random: this.#random,
      now: this.now,
      lifetimeMs
    })
  }

  /** Whether an address is, or was before its last move, one of its own. */
  owns(host: string): boolean {
    return host.startsWith(this.role === "client" ? "198.51." : "203.0.")
  }

  freePort(): number {
    return this.#nextPort++
  }

  isDown(): boolean {
    return this.downUntil > this.now()
  }
  isAsleep(): boolean {
    return this.asleepUntil > this.now()
  }
}
