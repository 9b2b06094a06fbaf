/** One end of a simulated session: where it is, what it is bound to, and its path choice. */
import type { SocketAddr } from "../../../src/protocol/bytes/SocketAddr.ts"
import { GuessBudget } from "../../../src/protocol/path/GuessBudget.ts"
import { PathMachine } from "../../../src/protocol/path/PathMachine.ts"
import { keyOf, type PathRef, RELAY, type Role } from "../../../src/protocol/path/PathRef.ts"
import { PortGuess } from "../../../src/protocol/path/PortGuess.ts"
import { Host, type Place } from "./Host.ts"
import type { Random } from "./Random.ts"

export type { Place } from "./Host.ts"

export class PairNode extends Host {
  readonly #random: Random
  machine: PathMachine
  guess: PortGuess
  #machines = 0
  #budget = new GuessBudget(0)
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
  guesses = 0
  openers = 0
  readonly guessedAt: Array<number> = []

  constructor(role: Role, place: Place, random: Random, now: () => number) {
    super(role, place, random, now)
    this.#random = random
    const made = this.#make()
    this.machine = made.machine
    this.guess = made.guess
  }

  override move(place: Place): void {
    super.move(place)
    this.sockets = new Map()
    this.won.clear()
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
      now: this.now(),
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

  /** By which socket packets to a peer's address leave. */
  socketTo({ host, port }: SocketAddr): number {
    return this.won.get(`${host}|${port}`) ?? this.port
  }
}
