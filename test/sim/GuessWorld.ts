/** Two nodes with path choice and port guessing, each behind a modelled translator (RFC 4787), and a relay. Time is simulated. */
import * as Candidate from "../../src/protocol/Candidate.ts"
import { GuessBudget } from "../../src/protocol/GuessBudget.ts"
import * as PathGuessing from "../../src/protocol/PathGuessing.ts"
import { PathMachine } from "../../src/protocol/PathMachine.ts"
import { direct, keyOf, type PathRef, RELAY, type Role } from "../../src/protocol/PathRef.ts"
import { PortGuess } from "../../src/protocol/PortGuess.ts"
import type { SocketAddr } from "../../src/protocol/SocketAddr.ts"
import type { Nat } from "./NatWorld.ts"
import { randomOf } from "./PathNet.ts"

const MAIN = 40_000
const SERVER = { host: "203.0.113.10", port: 3_478 }
const PUBLIC: Readonly<Record<Role, string>> = { client: "198.51.100.2", connector: "198.51.100.34" }
const DIRECT_MS = 10
const RELAY_MS = 20

type Mapping = { readonly local: number; readonly port: number; readonly sentTo: Set<string> }
type Packet = { readonly _tag: "Ping" | "Pong"; readonly txId: string | null }

class Translator {
  readonly #nat: Nat
  readonly #random: () => number
  readonly #byFlow = new Map<string, Mapping>()
  readonly #byPort = new Map<number, Mapping>()
  #counter = 20_000

  constructor(nat: Nat, random: () => number) {
    this.#nat = nat
    this.#random = random
  }

  /** The outside port of what leaves. */
  out(local: number, to: SocketAddr): number {
    const by = this.#nat.mapping
    const key = by === "endpoint-independent"
      ? `${local}`
      : by === "address-dependent"
      ? `${local}|${to.host}`
      : `${local}|${to.host}|${to.port}`
    const mapping = this.#byFlow.get(key) ?? { local, port: this.#allocate(local), sentTo: new Set<string>() }
    this.#byFlow.set(key, mapping)
    this.#byPort.set(mapping.port, mapping)
    mapping.sentTo.add(to.host).add(`${to.host}|${to.port}`)
    return mapping.port
  }

  /** The inside port of what arrives; undefined: it is not let in. */
  in(port: number, from: SocketAddr): number | undefined {
    const mapping = this.#byPort.get(port)
    const by = this.#nat.filtering
    const open = by === "endpoint-independent" ||
      mapping?.sentTo.has(by === "address-dependent" ? from.host : `${from.host}|${from.port}`) === true
    return open ? mapping?.local : undefined
  }

  #allocate(local: number): number {
    const { allocation } = this.#nat
    const next = () => {
      if (allocation.kind === "sequential") return this.#counter += allocation.delta
      if (allocation.kind === "preserving" && !this.#byPort.has(local)) return local
      return 1_024 + Math.floor(this.#random() * 64_512)
    }
    let port = next()
    while (this.#byPort.has(port)) port = next()
    return port
  }
}

class Side {
  readonly role: Role
  readonly host: string
  readonly machine: PathMachine
  readonly guess: PortGuess
  readonly nat: Translator
  readonly pings = new Map<string, number>()
  wake: number | null = null
  /** Guess sockets, by their own port: whether it has sent its probe. */
  sockets = new Map<number, boolean>()
  won: { readonly local: number; readonly key: string } | null = null
  nextLocal = 41_000
  guesses = 0
  openers = 0

  constructor(role: Role, nat: Nat, seed: number, random: () => number) {
    this.role = role
    this.host = PUBLIC[role]
    this.nat = new Translator(nat, random)
    this.machine = new PathMachine({ role, now: 0, path: RELAY, active: true, txPrefix: "0000000a" })
    let next = seed
    this.guess = new PortGuess({ budget: new GuessBudget(0), nextSeed: () => (next = (next + 0x9e3779b9) >>> 0) })
  }
}

export interface World {
  readonly client: Nat
  readonly connector: Nat
  readonly seed: number
  /** 0 to 1, of packets on every way. */
  readonly loss?: number
}
export interface Result {
  /** When the client's session went direct; null: it did not. */
  readonly ms: number | null
  readonly reason: string
  /** Of both sides. */
  readonly guesses: number
  readonly openers: number
  /** Sockets that are still open for guessing, of both sides. */
  readonly open: number
  /** Sends to guessed ports, or from guess sockets, that left in the busiest second of one node. */
  readonly busiest: number
}

export const run = (world: World, untilMs: number): Result => {
  const random = randomOf(world.seed)
  const client = new Side("client", world.client, 2 * world.seed, random)
  const connector = new Side("connector", world.connector, 2 * world.seed + 1, random)
  const peerOf = (side: Side) => (side === client ? connector : client)
  const sent = new Map<Side, Array<number>>([[client, []], [connector, []]])
  let events: Array<{ readonly at: number; readonly run: () => void }> = []
  let now = 0
  let directAt: number | null = null

  const after = (ms: number, run: () => void) => {
    if (random() >= (world.loss ?? 0)) events.push({ at: now + ms, run })
  }
  const send = (side: Side, local: number, to: SocketAddr, packet: Packet) => {
    const from = { host: side.host, port: side.nat.out(local, to) }
    const peer = peerOf(side)
    if (to.host !== peer.host) return
    after(DIRECT_MS, () => {
      const inside = peer.nat.in(to.port, from)
      if (inside !== undefined && (inside === MAIN || peer.sockets.has(inside))) receive(peer, inside, from, packet)
    })
  }
  const socketTo = (side: Side, path: PathRef) => (side.won?.key === keyOf(path) ? side.won.local : MAIN)
  const receive = (side: Side, local: number, from: SocketAddr, packet: Packet) => {
    const path = direct(from)
    if (local !== MAIN && side.won === null) {
      side.won = { local, key: keyOf(path) }
      side.sockets = new Map([[local, true]])
    }
    if (packet._tag === "Ping") {
      send(side, socketTo(side, path), from, { _tag: "Pong", txId: packet.txId })
      return input(side, () => (side.guess.onPing(path), side.machine.onPing(path, now)))
    }
    const at = packet.txId === null ? undefined : side.pings.get(packet.txId)
    const { txId } = packet
    if (at !== undefined && txId !== null) input(side, () => side.machine.onPong(path, txId, now - at, now))
  }
  const input = (side: Side, give: () => ReadonlyArray<PathGuessing.Output>) => {
    for (const output of PathGuessing.follow(side.machine, side.guess, give(), now)) obey(side, output)
  }
  const tick = (side: Side) => input(side, () => side.machine.onTick(now))
  const openOne = (side: Side) => {
    const local = side.nextLocal++
    side.sockets.set(local, false)
    return local
  }
  const obey = (side: Side, output: PathGuessing.Output): void => {
    const peer = peerOf(side)
    switch (output._tag) {
      case "SendPing": {
        const { path, txId } = output
        side.pings.set(txId, now)
        if (path.kind === "direct") return send(side, socketTo(side, path), path.remote, { _tag: "Ping", txId })
        return after(RELAY_MS, () => {
          input(peer, () => peer.machine.onPing(RELAY, now))
          after(RELAY_MS, () => input(side, () => side.machine.onPong(RELAY, txId, 2 * RELAY_MS, now)))
        })
      }
      case "SendCandidates":
        return after(RELAY_MS, () => {
          input(peer, () => {
            peer.guess.onPeer(output.mapping ?? null, output.list, now)
            return peer.machine.onPeerCandidates(output.seq, output.list, now)
          })
          after(RELAY_MS, () => input(side, () => side.machine.onCandidatesAcked(output.seq, now)))
        })
      case "Select":
        if (output.path.kind === "direct") directAt ??= now
        return
      case "SetPacketSize": // probes here have no size
        return
      case "SampleGuess":
        side.sockets.clear()
        for (let i = 0; i < output.count; i++) {
          const local = openOne(side)
          const mapped = { host: side.host, port: side.nat.out(local, SERVER) }
          after(RELAY_MS, () => (side.guess.onSample({ local, mapped }), tick(side)))
        }
        return
      case "OpenGuess": {
        const ready = [...side.sockets].filter(([, opened]) => !opened).map(([local]) => local)
        for (let i = 0; i < output.count; i++) {
          const local = ready[i] ?? openOne(side)
          side.sockets.set(local, true)
          side.openers++
          sent.get(side)!.push(now)
          send(side, local, output.to, { _tag: "Ping", txId: null })
        }
        return
      }
      case "CloseGuess":
        side.sockets = new Map(side.won === null ? [] : [[side.won.local, true]])
        return
      case "SendGuesses":
        for (const to of output.to) {
          side.guesses++
          sent.get(side)!.push(now)
          send(side, MAIN, to, { _tag: "Ping", txId: null })
        }
        return
      case "TellOpened":
        return after(RELAY_MS, () => (peer.guess.onOpened(output.opened), tick(peer)))
      case "Wake":
        side.wake = output.at
        return
      case "RequestSwitch":
      case "Decided":
        return
    }
  }

  for (const side of [client, connector]) {
    const seenAt = { host: side.host, port: side.nat.out(MAIN, SERVER) }
    const other = side.nat.out(MAIN, { ...SERVER, port: SERVER.port + 1 })
    const mapping = other === seenAt.port ? "steady" : "varies"
    side.guess.onLocal(mapping)
    input(side, () => side.machine.onLocalCandidates([Candidate.make("srflx", seenAt)], false, now, mapping))
  }
  for (;;) {
    const next = Math.min(...events.map(({ at }) => at), client.wake ?? Infinity, connector.wake ?? Infinity)
    if (next > untilMs) break
    now = next
    const due = events.filter(({ at }) => at <= now)
    events = events.filter(({ at }) => at > now)
    for (const event of due) event.run()
    for (const side of [client, connector]) {
      if (side.wake === null || side.wake > now) continue
      side.wake = null
      tick(side)
    }
  }
  const busiest = Math.max(
    0,
    ...[...sent.values()].flatMap((list) =>
      list.map((at, i) => list.slice(i).filter((other) => other < at + 1_000).length)
    )
  )
  return {
    ms: directAt,
    reason: client.machine.reason,
    guesses: client.guesses + connector.guesses,
    openers: client.openers + connector.openers,
    open: [client, connector].reduce((sum, { sockets, won }) => sum + sockets.size - (won === null ? 0 : 1), 0),
    busiest
  }
}
