/** Two path machines with a relay and direct links between them, in virtual time; packets only, no sockets. */
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import { type Output, PathMachine } from "../../src/protocol/path/PathMachine.ts"
import { MIN_PING_BYTES, SEAL_BYTES } from "../../src/protocol/path/PathMessage.ts"
import { direct, keyOf, type PathRef, RELAY } from "../../src/protocol/path/PathRef.ts"
import { randomOf } from "./world/Random.ts"
import { Timeline } from "./world/Timeline.ts"

export type Link = {
  /** One way, ms. */
  delayMs: number
  /** Added at random to each packet, up to this. */
  jitterMs: number
  /** 0 to 1, each way. */
  loss: number
  /** Drops all, both ways. */
  down: boolean
  /** Drops larger ones: bytes that a QUIC packet of this size and a probe padded to it both have. */
  mtu?: number
  /** Both sides must have sent on it before anything comes through (port-restricted translators). */
  needsBoth?: boolean
}

/** How long a data plane that was stalled is held up between two of its sockets. */
const READ_GAP_MS = 60

export const CLIENT = { host: "198.51.100.1", port: 4001 }
export const CONNECTOR = { host: "203.0.113.2", port: 4002 }

type Side = {
  readonly machine: PathMachine
  readonly name: "client" | "connector"
  readonly peer: () => Side
  wake: number | null
  /** The side stands still until then: its timers and what arrives for it wait. */
  frozenUntil: number
  /**
   * Its data plane does nothing until then: its pings wait, and what arrives for it. Its path machine goes on. The sockets of
   * the relay are read first, and those of the direct path after {@link READ_GAP_MS}.
   */
  stalledUntil: number
  /** When it asked the client to leave the path in use. */
  readonly requested: Array<number>
  /** Pings, but for the padded ones. */
  readonly sent: Array<{ at: number; path: PathRef }>
  readonly selected: Array<{ at: number; path: PathRef; reason: string }>
  readonly pings: Map<string, number>
  /** Of packets, by path. */
  readonly sizes: Map<string, number>
}

export class PathNet {
  readonly #time = new Timeline()
  readonly relay: Link = { delayMs: 20, jitterMs: 0, loss: 0, down: false }
  readonly direct: Link = { delayMs: 10, jitterMs: 0, loss: 0, down: false }
  readonly client: Side
  readonly connector: Side
  readonly #random: () => number
  readonly #opened = new Set<string>()

  constructor(options: { readonly seed?: number; readonly active?: boolean } = {}) {
    this.#random = randomOf(options.seed ?? 1)
    const side = (name: "client" | "connector", peer: () => Side): Side => ({
      name,
      peer,
      machine: new PathMachine({
        role: name,
        now: 0,
        path: RELAY,
        active: options.active ?? true,
        txPrefix: "0000000a"
      }),
      wake: null,
      frozenUntil: -Infinity,
      stalledUntil: -Infinity,
      requested: [],
      sent: [],
      selected: [],
      pings: new Map(),
      sizes: new Map()
    })
    this.client = side("client", () => this.connector)
    this.connector = side("connector", () => this.client)
  }

  /** Both sides tell each other their address, as when the session is up. */
  start(): this {
    this.apply(this.client, (m) => m.onLocalCandidates([Candidate.make("srflx", CLIENT)], false, this.now))
    this.apply(this.connector, (m) => m.onLocalCandidates([Candidate.make("srflx", CONNECTOR)], false, this.now))
    return this
  }

  apply(side: Side, input: (machine: PathMachine) => ReadonlyArray<Output>): void {
    for (const output of input(side.machine)) this.#do(side, output)
  }

  get now(): number {
    return this.#time.now
  }

  at(ms: number, run: () => void): void {
    this.#time.at(ms, run)
  }

  runUntil(ms: number): void {
    this.#time.runUntil(ms)
  }

  /** The host of this side does nothing for a while, then goes on with all that waits, in order of arrival. */
  freeze(side: Side, ms: number): void {
    side.frozenUntil = this.now + ms
  }

  /** The data plane of this side stands still for a while, as a thread that gets no processor time. */
  stall(side: Side, ms: number): void {
    side.stalledUntil = this.now + ms
  }

  /** Runs when the data plane of this side has read its sockets up to those of `link`. */
  #whenRead(side: Side, link: Link, run: () => void): void {
    if (this.now < side.stalledUntil) this.at(side.stalledUntil + (link === this.relay ? 0 : READ_GAP_MS), run)
    else if (link !== this.relay && this.now < side.stalledUntil + READ_GAP_MS) {
      this.at(side.stalledUntil + READ_GAP_MS, run)
    } else run()
  }

  #whenAwake(side: Side, run: () => void): void {
    if (this.now < side.frozenUntil) this.at(side.frozenUntil, run)
    else run()
  }

  #wake(side: Side, at: number | null): void {
    side.wake = at
    if (at === null) return
    this.#time.at(Math.max(at, side.frozenUntil), () => {
      if (side.wake !== at) return
      if (this.now < side.frozenUntil) return this.#wake(side, at)
      side.wake = null
      this.apply(side, (m) => m.onTick(this.now))
    })
  }

  #do(side: Side, output: Output): void {
    const peer = side.peer()
    switch (output._tag) {
      case "SendPing": {
        if (output.padTo === MIN_PING_BYTES) side.sent.push({ at: this.now, path: output.path })
        side.pings.set(output.txId, this.now)
        const link = output.path.kind === "relay" ? this.relay : this.direct
        const back = output.path.kind === "relay" ? RELAY : direct(side === this.client ? CLIENT : CONNECTOR)
        if (output.padTo + SEAL_BYTES > (link.mtu ?? Infinity)) return
        return this.#carry(link, side, () => {
          this.apply(peer, (m) => m.onPing(back, this.now))
          this.#carry(link, peer, () => {
            const rttMs = this.now - side.pings.get(output.txId)!
            this.apply(side, (m) => m.onPong(output.path, output.txId, rttMs, this.now))
          })
        })
      }
      case "SendCandidates":
        return this.#carry(this.relay, side, () => {
          this.apply(peer, (m) => m.onPeerCandidates(output.seq, output.list, this.now))
          this.#carry(this.relay, peer, () => this.apply(side, (m) => m.onCandidatesAcked(output.seq, this.now)))
        })
      case "Select": {
        side.selected.push({ at: this.now, path: output.path, reason: output.reason })
        const back = output.path.kind === "relay" ? RELAY : direct(CLIENT)
        return this.#carry(
          output.path.kind === "relay" ? this.relay : this.direct,
          side,
          () => this.apply(peer, (m) => m.onSelectedByPeer(back, this.now))
        )
      }
      case "RequestSwitch":
        side.requested.push(this.now)
        for (const link of [this.relay, this.direct]) {
          this.#carry(link, side, () => this.apply(peer, (m) => m.onSwitchRequested(output.reason, this.now)))
        }
        return
      case "AskRead":
        return this.at(
          this.now,
          () =>
            this.#whenAwake(
              side,
              () => this.#whenRead(side, this.direct, () => this.apply(side, (m) => m.onRead(this.now)))
            )
        )
      case "SetPacketSize":
        side.sizes.set(keyOf(output.path), output.bytes)
        return
      case "Wake":
        return this.#wake(side, output.at)
      case "Decided":
        return
    }
  }

  #carry(link: Link, from: Side, arrive: () => void): void {
    if (link.needsBoth === true) this.#opened.add(from.name)
    if (link.down || this.#random() < link.loss) return
    const leavesAt = Math.max(this.now, from.stalledUntil)
    this.at(leavesAt + link.delayMs + this.#random() * link.jitterMs, () => {
      if (link.down || (link.needsBoth === true && this.#opened.size < 2)) return
      this.#whenAwake(from.peer(), () => this.#whenRead(from.peer(), link, arrive))
    })
  }
}

export const pathOf = (side: { readonly machine: PathMachine }): string => keyOf(side.machine.path)
export const DIRECT = keyOf(direct(CONNECTOR))
