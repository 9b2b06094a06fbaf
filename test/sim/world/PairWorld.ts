/**
 * Two nodes with the real path choice and port guessing, each behind a modelled translator, and a relay; packets are words, and
 * QUIC is a word every 100 ms each way by the path in use. What their other actors do is modelled, too: they bind at the relay and
 * look at themselves by STUN. Time is virtual.
 */
import type { SocketAddr } from "../../../src/protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../../src/protocol/candidate/Candidate.ts"
import * as PathGuessing from "../../../src/protocol/path/PathGuessing.ts"
import { direct, keyOf, type PathRef, RELAY, type Role, type SwitchReason } from "../../../src/protocol/path/PathRef.ts"
import type { Opened } from "../../../src/protocol/path/PortGuess.ts"
import { PairNode, type Place } from "./PairNode.ts"
import { type Random, randomOf } from "./Random.ts"
import { Timeline } from "./Timeline.ts"

export const SERVER = { host: "192.0.2.1", port: 3_478 }
const SECOND = { ...SERVER, port: SERVER.port + 1 }
const DATA_GAP_MS = 100
/** A node that is bound says so again, which keeps its mapping. */
const RELAY_KEEPALIVE_MS = 20_000
const BIND_RETRY_MS = 500
/** From a change of this host's addresses to when its actors know. */
const NOTICE_MS = 30

type Packet =
  | { readonly t: "Ping"; readonly txId: string | null }
  | { readonly t: "Pong"; readonly txId: string | null }
  | {
    readonly t: "Candidates"
    readonly seq: number
    readonly list: ReadonlyArray<Candidate.Candidate>
    readonly mapping: Candidate.Mapping | null
  }
  | { readonly t: "Ack"; readonly seq: number }
  | { readonly t: "Switch"; readonly reason: SwitchReason }
  | { readonly t: "Opened"; readonly opened: Opened }
  /** `n`: the newest that the sender has sent, of its session's packets. */
  | { readonly t: "Data"; readonly n: number }

export interface Options {
  readonly client: Place
  readonly connector: Place
  readonly seed: number
}

export class PairWorld {
  readonly time = new Timeline()
  readonly client: PairNode
  readonly connector: PairNode
  readonly #random: Random
  /** 0 to 1, of packets everywhere, until `lossUntil`. */
  loss = 0
  lossUntil = Infinity
  directDownUntil = 0
  relayDownUntil = 0
  /** Of direct packets on their way, in addition, ms. */
  detourMs = 0
  /** Counts the relay's lives: who was bound in another one is not. */
  #life = 0
  /** No flow is open until then. */
  idleUntil = 0
  #dataSent = 0
  #dataSeen = -1
  /** When the connector's answer to a packet of the client's came last. */
  answeredAt = 0
  /** The longest that a flow had to wait for an answer. */
  stallMs = 0

  constructor({ client, connector, seed }: Options) {
    this.#random = randomOf(seed)
    const now = () => this.time.now
    this.client = new PairNode("client", client, this.#random, now)
    this.connector = new PairNode("connector", connector, this.#random, now)
    for (const node of this.nodes) {
      this.#bind(node)
      this.#keepBound(node)
    }
    this.#talk()
  }

  get nodes(): readonly [PairNode, PairNode] {
    return [this.client, this.connector]
  }
  of(role: Role): PairNode {
    return role === "client" ? this.client : this.connector
  }
  peerOf(node: PairNode): PairNode {
    return node === this.client ? this.connector : this.client
  }
  get active(): boolean {
    return this.idleUntil <= this.time.now
  }

  // ---------------------------------------------------------------------------------------------------- what may happen

  move(node: PairNode, place: Place): void {
    node.move(place)
    this.time.after(NOTICE_MS, () => this.#notice(node, node.path.kind === "direct" ? [4] : []))
  }

  /** The translator forgets all; with `newWan`, it also gets another address. Nobody is told. */
  rebind(node: PairNode, newWan: boolean): void {
    if (newWan) node.replaceTranslator()
    else node.translator?.loseMappings()
  }

  relayDown(ms: number): void {
    this.relayDownUntil = Math.max(this.relayDownUntil, this.time.now + ms)
    this.#life++
    // Signaling comes back with the relay, and with it the word to bind anew.
    this.time.at(this.relayDownUntil + this.#random() * 1_000, () => this.nodes.forEach((node) => this.#bind(node)))
  }

  crash(node: PairNode): void {
    node.crash()
    this.#input(node, () => node.machine.onRelayBound(this.#legOf(node), this.time.now))
    node.candidates?.tell()
    this.#gather(node)
  }

  sleep(node: PairNode, ms: number): void {
    node.asleepUntil = Math.max(node.asleepUntil, this.time.now + ms)
    const until = node.asleepUntil
    this.time.at(until, () => {
      if (node.asleepUntil !== until) return
      this.#input(node, () => node.machine.onActivity(this.active, this.time.now))
      this.#notice(node, [])
    })
  }

  idle(ms: number): void {
    const until = Math.max(this.idleUntil, this.time.now + ms)
    this.idleUntil = until
    for (const node of this.nodes) this.#input(node, () => node.machine.onActivity(false, this.time.now))
    this.time.at(until, () => {
      if (!this.active) return
      this.answeredAt = this.time.now
      for (const node of this.nodes) this.#input(node, () => node.machine.onActivity(true, this.time.now))
    })
  }

  /** Longer than a flow may be without an answer: everything that was disturbed is whole again from then on. */
  get calmAt(): number {
    const nodes = this.nodes.flatMap(({ asleepUntil, downUntil }) => [asleepUntil, downUntil])
    const loss = this.loss > 0 && this.lossUntil < Infinity ? this.lossUntil : 0
    return Math.max(...nodes, loss, this.directDownUntil, this.relayDownUntil, this.idleUntil)
  }

  // --------------------------------------------------------------------------------------- the node's other actors, modelled

  #notice(node: PairNode, lost: ReadonlyArray<4 | 6>): void {
    if (node.isAsleep()) return
    node.seenAs = null
    this.#tellChange(node, lost)
    this.#bind(node)
  }

  #tellChange(node: PairNode, lost: ReadonlyArray<4 | 6>): void {
    this.#input(node, () => {
      node.guess.onNetworkChange()
      return node.machine.onNetworkChange(this.time.now, lost)
    })
  }

  #legOf({ translator }: PairNode) {
    return translator === null ? "relay-tcp" as const : "relay-udp" as const
  }

  /** Two round trips, and again until it works. */
  #bind(node: PairNode): void {
    const attempt = ++node.binding
    node.isBinding = true
    const { time } = this
    const place = node.place
    time.after(4 * place.delayMs, () => {
      if (attempt !== node.binding) return
      const works = !node.isDown() && !node.isAsleep() && this.relayDownUntil <= time.now && !this.#isLost()
      if (!works) return time.after(BIND_RETRY_MS, () => attempt === node.binding && this.#bind(node))
      node.isBinding = false
      node.bound = { from: outsideOf(node), life: this.#life }
      this.#input(node, () => node.machine.onRelayBound(this.#legOf(node), time.now))
      const { seenAs } = node
      node.seenAs = node.bound.from
      // Its translator has forgotten it, for its peer, too.
      if (seenAs !== null && seenAs !== node.seenAs) this.#tellChange(node, [])
      this.#gather(node)
    })
  }

  #keepBound(node: PairNode): void {
    this.time.after(RELAY_KEEPALIVE_MS, () => {
      this.#keepBound(node)
      if (node.isAsleep()) return
      if (node.bound?.from !== outsideOf(node) || node.bound.life !== this.#life) this.#bind(node)
    })
  }

  /** One round trip to the relay's STUN server, by two of its ports. */
  #gather(node: PairNode): void {
    const { place, port, translator } = node
    this.time.after(2 * place.delayMs, () => {
      if (node.place !== place || node.port !== port || node.isAsleep()) return
      const { now } = this.time
      const host = Candidate.make("host", { host: node.inside, port })
      if (translator === null || translator !== node.translator) {
        if (translator === null) this.#input(node, () => node.machine.onLocalCandidates([host], true, now))
        else this.#gather(node)
        return
      }
      const seen = translator.out(port, SERVER)
      const mapping = keyOf(direct(seen)) === keyOf(direct(translator.out(port, SECOND))) ? "steady" : "varies"
      this.#input(node, () => {
        node.guess.onLocal(mapping)
        return node.machine.onLocalCandidates([Candidate.make("srflx", seen), host], false, now, mapping)
      })
    })
  }

  // ---------------------------------------------------------------------------------------------------------- the network

  #isLost(): boolean {
    return this.loss > 0 && this.time.now < this.lossUntil && this.#random() < this.loss
  }

  #direct(from: PairNode, local: number, to: SocketAddr, packet: Packet): void {
    if (from.translator === null || from.isDown() || from.isAsleep()) return
    const outside = from.translator.out(local, to)
    const peer = this.peerOf(from)
    if (!peer.owns(to.host) || this.#isLost()) return
    const { time } = this
    time.after(from.place.delayMs + peer.place.delayMs + this.detourMs, () => {
      if (peer.isDown() || peer.isAsleep() || this.directDownUntil > time.now) return
      const inside = peer.translator?.in(to, outside)
      if (inside === undefined || (inside !== peer.port && !peer.sockets.has(inside))) return
      this.#receive(peer, direct(outside), inside, packet)
    })
  }

  #byRelay(from: PairNode, packet: Packet): void {
    if (from.isDown() || from.isAsleep()) return
    const source = outsideOf(from)
    const peer = this.peerOf(from)
    const { time } = this
    if (this.#isLost()) return
    time.after(from.place.delayMs, () => {
      if (this.relayDownUntil > time.now) return
      if (from.bound?.from !== source || from.bound.life !== this.#life) {
        // It is told that it is not bound there (REBIND), and does it.
        return time.after(from.place.delayMs, () => {
          if (!from.isBinding && !from.isDown() && !from.isAsleep()) this.#bind(from)
        })
      }
      const { bound } = peer
      if (bound === null || bound.life !== this.#life || this.#isLost()) return
      time.after(peer.place.delayMs, () => {
        if (peer.isDown() || peer.isAsleep() || bound.from !== outsideOf(peer)) return
        this.#receive(peer, RELAY, peer.port, packet)
      })
    })
  }

  #send(node: PairNode, path: PathRef, packet: Packet): void {
    if (path.kind === "direct") this.#direct(node, node.socketTo(path.remote), path.remote, packet)
    else this.#byRelay(node, packet)
  }

  /** By the relay and the path in use. */
  #sendAround(node: PairNode, packet: Packet): void {
    this.#send(node, RELAY, packet)
    if (node.path.kind === "direct") this.#send(node, node.path, packet)
  }

  #receive(node: PairNode, path: PathRef, local: number, packet: Packet): void {
    const { now } = this.time
    const { guess, machine } = node
    if (local !== node.port && path.kind === "direct") {
      node.won.set(keyOf(path), local)
      if (guess.reason === "guessing") node.closeGuesses()
    }
    switch (packet.t) {
      case "Ping":
        this.#send(node, path, { t: "Pong", txId: packet.txId })
        return this.#input(node, () => (guess.onPing(path), machine.onPing(path, now)))
      case "Pong": {
        const at = packet.txId === null ? undefined : node.pings.get(packet.txId)
        if (at === undefined || packet.txId === null) return
        const [asked, txId] = [this.#asked.get(packet.txId)!, packet.txId]
        node.answered.add(keyOf(asked))
        return this.#input(node, () => machine.onPong(asked, txId, now - at, now))
      }
      case "Candidates":
        this.#send(node, path, { t: "Ack", seq: packet.seq })
        return this.#onCandidates(node, packet)
      case "Ack":
        return this.#input(node, () => machine.onCandidatesAcked(packet.seq, now))
      case "Switch":
        return this.#input(node, () => machine.onSwitchRequested(packet.reason, now))
      case "Opened":
        guess.onOpened(packet.opened)
        return this.#tick(node)
      case "Data":
        return this.#onData(node, path, packet.n)
    }
  }

  #onCandidates(node: PairNode, { list, mapping, seq }: Packet & { readonly t: "Candidates" }): void {
    const tell = () =>
      this.#input(node, () => {
        node.guess.onPeer(mapping, list, this.time.now)
        return node.machine.onPeerCandidates(seq, list, this.time.now)
      })
    if (seq >= (node.candidates?.seq ?? 0)) node.candidates = { seq, tell }
    tell()
  }

  // ------------------------------------------------------------------------------------------------------------- the flow

  /** The client asks, the connector answers by the path that the newest packet came by (RFC 9000, section 9.3). */
  #talk(): void {
    const { client, time } = this
    if (this.active && !client.isAsleep()) {
      this.stallMs = Math.max(this.stallMs, time.now - this.answeredAt)
      this.#send(client, client.path, { t: "Data", n: this.#dataSent++ })
    }
    time.after(DATA_GAP_MS, () => this.#talk())
  }

  #onData(node: PairNode, path: PathRef, n: number): void {
    if (node === this.client) {
      this.answeredAt = this.time.now
      return
    }
    if (n > this.#dataSeen) {
      this.#dataSeen = n
      if (keyOf(path) !== keyOf(node.path)) {
        node.path = path
        this.#input(node, () => node.machine.onSelectedByPeer(path, this.time.now))
      }
    }
    this.#send(node, node.path, { t: "Data", n })
  }

  // ---------------------------------------------------------------------------------------------------- the path choice

  readonly #asked = new Map<string, PathRef>()

  #input(node: PairNode, give: () => ReadonlyArray<PathGuessing.Output>): void {
    if (node.isAsleep()) return
    for (const output of PathGuessing.follow(node.machine, node.guess, give(), this.time.now)) this.#obey(node, output)
  }

  #tick(node: PairNode): void {
    this.#input(node, () => node.machine.onTick(this.time.now))
  }

  #wake(node: PairNode, at: number | null): void {
    node.wakeAt = at
    const { machine } = node
    if (at === null) return
    this.time.at(at, () => {
      if (node.machine !== machine || node.wakeAt !== at || node.isAsleep()) return
      node.wakeAt = null
      this.#tick(node)
    })
  }

  #obey(node: PairNode, output: PathGuessing.Output): void {
    const { now } = this.time
    switch (output._tag) {
      case "SendPing":
        node.pings.set(output.txId, now)
        this.#asked.set(output.txId, output.path)
        return this.#send(node, output.path, { t: "Ping", txId: output.txId })
      case "SendCandidates":
        return this.#sendAround(node, {
          t: "Candidates",
          seq: output.seq,
          list: output.list,
          mapping: output.mapping ?? null
        })
      case "Select":
        node.path = output.path
        return
      case "AskRead":
        return this.time.after(0, () => this.#input(node, () => node.machine.onRead(this.time.now)))
      case "RequestSwitch":
        return this.#sendAround(node, { t: "Switch", reason: output.reason })
      case "TellOpened":
        return this.#byRelay(node, { t: "Opened", opened: output.opened })
      case "SampleGuess":
        node.sockets = new Map()
        for (let i = 0; i < output.count; i++) {
          const local = node.freePort()
          node.sockets.set(local, false)
          const mapped = node.translator?.out(local, SERVER)
          if (mapped === undefined || this.#isLost() || this.#isLost()) continue
          this.time.after(2 * node.place.delayMs, () => {
            node.guess.onSample({ local, mapped })
            this.#tick(node)
          })
        }
        return
      case "OpenGuess": {
        const ready = [...node.sockets].filter(([, opened]) => !opened).map(([local]) => local)
        for (let i = 0; i < output.count; i++) {
          const local = ready[i] ?? node.freePort()
          node.sockets.set(local, true)
          node.openers++
          node.guessedAt.push(now)
          this.#direct(node, local, output.to, { t: "Ping", txId: null })
        }
        return
      }
      case "CloseGuess":
        return node.closeGuesses()
      case "SendGuesses":
        for (const to of output.to) {
          node.guesses++
          node.guessedAt.push(now)
          this.#direct(node, node.port, to, { t: "Ping", txId: null })
        }
        return
      case "Wake":
        return this.#wake(node, output.at)
      case "SetPacketSize": // words have no size
      case "Decided":
        return
    }
  }
}

/** As the relay sees what the node sends it; by TCP where UDP does not pass. */
const outsideOf = ({ port, translator }: PairNode): string =>
  translator === null ? "tcp" : keyOf(direct(translator.out(port, SERVER)))
