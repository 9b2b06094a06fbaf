/** One end of a simulated session: where it is, what it is bound to, and its path choice. */
import { GuessBudget } from "../../../src/protocol/GuessBudget.ts"
import { PathMachine } from "../../../src/protocol/PathMachine.ts"
import { keyOf, type PathRef, RELAY, type Role } from "../../../src/protocol/PathRef.ts"
import { PortGuess } from "../../../src/protocol/PortGuess.ts"
import type { SocketAddr } from "../../../src/protocol/SocketAddr.ts"
import { type NatName, NATS } from "./Nats.ts"
import type { Random } from "./Random.ts"
import { type Nat, Translator } from "./Translator.ts"

/** A network that a node can be in. */
export interface Place {
  readonly nat: NatName | Nat
  /** From the node to the middle of the Internet, ms. */
  readonly delayMs: number
  /** After which its translator forgets a mapping, ms. */
  readonly lifetimeMs?: number
}

const FIRST_PORT = 40_000

export class PairNode {
  readonly role: Role
  readonly #random: Random
  readonly #now: () => number
  machine: PathMachine
  guess: PortGuess
  place!: Place
  /** Null: UDP does not pass. */
  translator: Translator | null = null
  #places = 0
  #machines = 0
  #budget = new GuessBudget(0)
  /** Of its usual socket. */
  port = FIRST_PORT
  /** Nothing comes or goes until then. */
  downUntil = 0
  /** It does nothing until then. */
  asleepUntil = 0
  wakeAt: number | null = null
  /** The outside address that the relay takes its packets from, of which life of the relay. Null: not bound. */
  bound: { readonly from: string; readonly life: number } | null = null
  /** Counts attempts to bind, so that an older one gives way. */
  binding = 0
  isBinding = false
  /** As the relay saw it last; null: not yet, or since its addresses changed. */
  seenAs: string | null = null
  /** By which packets of the session leave. */
  path: PathRef = RELAY
  /** The peer's newest list, as its data plane keeps it. */
  candidates: { readonly seq: number; readonly tell: () => void } | null = null
  readonly pings = new Map<string, number>()
  /** Paths of which a ping was answered. */
  readonly answered = new Set<string>([keyOf(RELAY)])
  /** Sockets for guessing, by their port: whether it has sent its probe. */
  sockets = new Map<number, boolean>()
  readonly won = new Map<string, number>()
  #nextPort = FIRST_PORT + 1_000
  guesses = 0
  openers = 0
  readonly guessedAt: Array<number> = []

  constructor(role: Role, place: Place, random: Random, now: () => number) {
    this.role = role
    this.#random = random
    this.#now = now
    this.move(place)
    const made = this.#make()
    this.machine = made.machine
    this.guess = made.guess
  }

  /** To another network, whose outside addresses nobody has had before. */
  move(place: Place): void {
    this.place = place
    this.port = this.freePort()
    this.sockets = new Map()
    this.won.clear()
    this.replaceTranslator()
  }

  /** Another outside address where the node is. */
  replaceTranslator(): void {
    const { lifetimeMs = 120_000, nat } = this.place
    const behaviour = typeof nat === "string" ? NATS[nat] : nat
    const n = this.#places++
    const net = this.role === "client" ? `198.51` : `203.0`
    this.translator = behaviour === null ? null : new Translator({
      nat: behaviour,
      host: (of) => `${net}.${n % 200}.${10 + of}`,
      random: this.#random,
      now: this.#now,
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

  /** Its path choice dies and begins anew in the middle of the session. */
  crash(): void {
    this.guess.stop()
    const made = this.#make()
    this.machine = made.machine
    this.guess = made.guess
    this.closeGuesses()
    this.wakeAt = null
  }

  /** But those that a path lies on. */
  closeGuesses(): void {
    const kept = new Set(this.won.values())
    this.sockets = new Map([...this.sockets].filter(([local]) => kept.has(local)))
  }

  #make() {
    const n = this.#machines++
    const machine = new PathMachine({
      role: this.role,
      now: this.#now(),
      path: this.path,
      active: true,
      txPrefix: (0x0a000000 + n).toString(16).padStart(8, "0"),
      firstSeq: n * 1_000_000
    })
    const guess = new PortGuess({
      budget: this.#budget,
      nextSeed: () => Math.floor(this.#random() * 2 ** 32)
    })
    return { machine, guess }
  }

  isDown(): boolean {
    return this.downUntil > this.#now()
  }
  isAsleep(): boolean {
    return this.asleepUntil > this.#now()
  }

  /** By which socket packets to a peer's address leave. */
  socketTo({ host, port }: SocketAddr): number {
    return this.won.get(`${host}|${port}`) ?? this.port
  }
}
