/**
 * Two whole nodes and a relay: the real StunActor, RelayActor and PathProberActor of each, their data planes (`SimPlane`), the
 * real relay server; signaling, QUIC and the network are modelled. Time is virtual.
 */
import { Effect, Fiber, Layer, Logger, LogLevel, PubSub, Random as EffectRandom, Stream, SubscriptionRef } from "effect"
import * as FlowTrace from "../../../src/actors/mux/FlowTrace.ts"
import { StreamMux, StreamMuxRpcs } from "../../../src/actors/mux/StreamMuxRpcs.ts"
import * as PathProberActor from "../../../src/actors/path/PathProberActor.ts"
import { PathProber, PathProberRpcs } from "../../../src/actors/path/PathProberRpcs.ts"
import * as RelayActor from "../../../src/actors/relay/RelayActor.ts"
import { Relay, RelayRpcs } from "../../../src/actors/relay/RelayRpcs.ts"
import type { RpcsOf } from "../../../src/actors/runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../../../src/actors/runtime/actor/ActorRef.ts"
import * as Self from "../../../src/actors/runtime/actor/Self.ts"
import { LastSnapshot } from "../../../src/actors/signaling/LastSnapshot.ts"
import type { SignalingEvent } from "../../../src/actors/signaling/RelaySignalingRpcs.ts"
import { Signaling, SignalingDown, SignalingRpcs } from "../../../src/actors/signaling/SignalingRpcs.ts"
import * as StunActor from "../../../src/actors/stun/StunActor.ts"
import { Stun, StunRpcs } from "../../../src/actors/stun/StunRpcs.ts"
import { tagFromHex } from "../../../src/protocol/bytes/Frame.ts"
import type { SocketAddr } from "../../../src/protocol/bytes/SocketAddr.ts"
import type { Role } from "../../../src/protocol/path/PathRef.ts"
import type { Signed } from "../../../src/protocol/trust/Signed.ts"
import * as Crypto from "../../../src/services/host/Crypto.ts"
import * as NetworkWatch from "../../../src/services/network/NetworkWatch.ts"
import * as PortMapper from "../../../src/services/network/portmap/PortMapper.ts"
import { SECRET_BYTES } from "../../../src/transport/probe/ProbeSeal.ts"
import type { LinkLeg, RelayServer } from "../../../src/transport/relay/RelayServer.ts"
import { Host, type Place } from "../world/Host.ts"
import { type Random, randomOf } from "../world/Random.ts"
import * as ActorSlot from "./ActorSlot.ts"
import * as EchoFlow from "./EchoFlow.ts"
import { Flow } from "./Flow.ts"
import type { Identities } from "./Identities.ts"
import * as ModelQuic from "./ModelQuic.ts"
import { SimHub } from "./SimHub.ts"
import { type Network, SimPlane } from "./SimPlane.ts"
import * as SimRelay from "./SimRelay.ts"
import { settled, VirtualTime } from "./VirtualTime.ts"

/** From a change of this host's addresses to when it is seen. */
const NOTICE_MS = 30
/** UDP that is blocked is given up after some seconds. */
const START_MS = 20_000
/** A supervisor's first pause. */
const RESTART_MS = 100
/** How often the forwarder and the sessions end and renew what is due. */
const TICK_MS = 1_000

export const ACTORS = ["pathProber", "stun", "relay"] as const

interface Node {
  readonly host: Host
  readonly plane: SimPlane
  readonly slots: Map<string, ActorSlot.ActorSlot>
  readonly network: SubscriptionRef.SubscriptionRef<NetworkWatch.NetworkState>
  readonly events: PubSub.PubSub<SignalingEvent>
  readonly last: LastSnapshot
  readonly credential: Signed
}

export interface Options {
  readonly client: Place
  readonly connector: Place
  readonly seed: number
  readonly identities: Identities
  /** Whether a hub arranges sessions and renews their documents. Otherwise one session is there from the start. */
  readonly hub?: boolean
}

export class NodeWorld {
  readonly time = new VirtualTime()
  readonly faults: Array<string> = []
  readonly flow: Flow
  readonly #random: Random
  readonly #identities: Identities
  readonly nodes: readonly [Node, Node]
  relayDownUntil = 0
  directDownUntil = 0
  detourMs = 0
  /** How much later than the relay signaling comes back. */
  signalingLagMs = 0
  loss = 0
  lossUntil = 0
  idleUntil = 0
  /** Null if one session is there from the start. */
  readonly hub: SimHub | null
  #fibers: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
  #relay: RelayServer
  #links = new Set<() => void>()

  constructor({ client, connector, hub = false, identities, seed }: Options) {
    this.#random = randomOf(seed)
    this.#identities = identities
    this.flow = new Flow(this.time, this.faults)
    this.#relay = this.#startRelay()
    this.hub = hub ? new SimHub(identities) : null
    const engine = ModelQuic.make(this.time.now)
    const secret = Uint8Array.from({ length: SECRET_BYTES }, () => Math.floor(this.#random() * 256))
    this.nodes = [this.#node("client", client, engine, secret), this.#node("connector", connector, engine, secret)]
  }

  get now(): number {
    return this.time.timeline.now
  }
  get active(): boolean {
    return this.idleUntil <= this.now
  }
  of(role: Role): Node {
    return this.nodes[role === "client" ? 0 : 1]
  }
  #peerOf(host: Host): Node {
    return this.of(host.role === "client" ? "connector" : "client")
  }

  // ------------------------------------------------------------------------------------------------------------- the nodes

  #node(role: Role, place: Place, engine: ReturnType<typeof ModelQuic.make>, secret: Uint8Array): Node {
    const host = new Host(role, place, this.#random, () => this.now)
    const own = this.#identities[role]
    const peer = this.#identities[role === "client" ? "connector" : "client"]
    const { clientTag, connectorTag } = this.#identities
    const tags = [tagFromHex(clientTag), tagFromHex(connectorTag)] as const
    const plane = new SimPlane({
      host,
      network: this.#network,
      engine,
      now: this.time.now,
      key: own.key,
      peerKey: peer.key,
      sendTag: tags[role === "client" ? 0 : 1],
      receiveTag: tags[role === "client" ? 1 : 0],
      secret,
      forward: (box) => this.#forward(host, box),
      onStream: (stream) => this.flow.onStream(role, stream),
      onDown: (why) => this.faults.push(`the session of the ${role} ended: ${why}`)
    })
    const network = Effect.runSync(SubscriptionRef.make(this.#stateOf(host, 0)))
    const events = Effect.runSync(PubSub.unbounded<SignalingEvent>())
    const last = new LastSnapshot()
    const node: Node = { host, plane, slots: new Map(), network, events, last, credential: own.credential }
    const { slots } = node
    const peers = ActorSlot.peers(slots)
    const self = (name: string) =>
      Layer.succeed(Self.Self, {
        name,
        incarnation: 1,
        die: (cause) => Effect.sync(() => this.faults.push(`${name} of the ${role} died: ${String(cause)}`)),
        watchQueue: () => Effect.void,
        exposeMetrics: () => Effect.void
      })
    const crypto = seeded(this.#random)
    const add = (slot: Effect.Effect<ActorSlot.ActorSlot>) => {
      const it = Effect.runSync(slot)
      slots.set(it.name, it)
    }
    add(ActorSlot.make(StreamMux, StreamMuxRpcs, plane.layer))
    add(ActorSlot.make(Signaling, SignalingRpcs, this.#signaling(node)))
    add(ActorSlot.make(
      Stun,
      StunRpcs,
      StunActor.layer.pipe(
        Layer.provide(Layer.mergeAll(peers, self("stun"), NetworkWatch.layerTest(network), crypto, PortMapper.layerOff))
      )
    ))
    add(ActorSlot.make(
      Relay,
      RelayRpcs,
      RelayActor.layer({ stateDir: own.stateDir }).pipe(
        Layer.provide(Layer.mergeAll(peers, self("relay"))),
        Layer.orDie
      )
    ))
    add(ActorSlot.make(
      PathProber,
      PathProberRpcs,
      PathProberActor.layer.pipe(Layer.provide(Layer.mergeAll(peers, self("pathProber"), crypto)))
    ))
    return node
  }

  #stateOf({ inside }: Host, wakes: number): NetworkWatch.NetworkState {
    return {
      addresses: [
        { name: "eth0", host: inside, family: 4, loopback: false, hasMac: true, isTun: false, isInnerBridge: false }
      ],
      outward: { v4: inside, v6: null },
      wakes
    }
  }

  #signaling({ events, host, last, plane: { key } }: Pick<Node, "events" | "host" | "last" | "plane">) {
    const down = new SignalingDown({ message: "modelled" })
    const { hub } = this
    const trip = Effect.suspend(() => Effect.sleep(host.place.delayMs))
    /** The call reaches the hub and its answer this node, as long as the host is not cut off. */
    const call = <A, E>(effect: Effect.Effect<A, E>) =>
      Effect.suspend((): Effect.Effect<A, E | SignalingDown> =>
        host.isDown() ? down : Effect.zipLeft(Effect.zipRight(trip, effect), trip)
      )
    return SignalingRpcs.toLayer({
      Events: () =>
        Stream.unwrapScoped(Effect.gen(function*() {
          const later = yield* PubSub.subscribe(events)
          const first = last.read()
          return Stream.concat(first === null ? Stream.empty : Stream.succeed(first), Stream.fromQueue(later))
        })),
      Dial: ({ target }) => hub === null ? down : call(hub.dial(key, target.host)),
      Ready: ({ session }) => hub === null ? Effect.void : call(hub.ready(session, key)),
      Decline: ({ reason, session }) => hub === null ? Effect.void : call(hub.decline(session, key, reason)),
      Renew: ({ ticket }) => hub === null ? down : call(hub.renew(ticket)),
      Resources: () => down,
      TurnCredentials: () => down,
      Forward: () => Effect.void,
      Wanted: () => Stream.empty,
      Report: () => Effect.void,
      Findings: () => Effect.void,
      BrowsersLost: () => Effect.void,
      SessionsLost: () => Effect.void,
      Presence: () => Effect.succeed("connected" as const),
      State: () => Effect.die("not asked here"),
      RelayAnswers: () => Effect.void,
      AwaitUp: () => Effect.void
    })
  }

  /** Runs an effect to its end without letting time pass: files are read at once, as far as the world is concerned. */
  async #atOnce<A>(effect: Effect.Effect<A>): Promise<A> {
    const done = { yet: false }
    const running = Effect.runPromise(
      effect.pipe(
        Logger.withMinimumLogLevel(LogLevel.None),
        Effect.withRandom(EffectRandom.make(Math.floor(this.#random() * 2 ** 31)))
      )
    ).finally(() => (done.yet = true))
    while (!done.yet) await settled()
    return running
  }

  async start(): Promise<void> {
    for (const { slots } of this.nodes) {
      for (const slot of slots.values()) await this.#atOnce(slot.start)
    }
    if (this.hub !== null) return this.#startWithHub(this.hub)
    for (const node of this.nodes) {
      this.#reconnect(node)
      const relay = node.slots.get("relay")!.ref as {
        ask: (call: (client: never) => unknown) => Effect.Effect<unknown>
      }
      const { session, ticket } = this.#identities
      const open = (client: { OpenSession: (payload: unknown) => Effect.Effect<void> }) =>
        client.OpenSession({ session, ticket })
      await this.#atOnce(relay.ask(open as never))
    }
    await this.#until(() => this.nodes.every(({ plane }) => plane.router.leg !== null))
    for (const { plane } of this.nodes) plane.begin()
    this.flow.run(() => this.active)
    await this.#until(() => this.flow.answeredAt > 0)
  }

  /** Flows are the caller's to open, by the sessions of the client. */
  async #startWithHub(hub: SimHub): Promise<void> {
    const fork = (effect: Effect.Effect<unknown, unknown>) => {
      const fiber = Effect.runFork(Logger.withMinimumLogLevel(effect, LogLevel.None))
      this.#fibers.push(fiber)
      fiber.addObserver(() => void (this.#fibers = this.#fibers.filter((it) => it !== fiber)))
    }
    for (const node of this.nodes) {
      const { host, plane, slots } = node
      plane.useSessions({
        authorityKey: this.#identities.authorityKey,
        signaling: slots.get("signaling")!.ref as ActorRef<RpcsOf<typeof Signaling>>,
        relay: slots.get("relay")!.ref as ActorRef<RpcsOf<typeof Relay>>,
        traces: await Effect.runPromise(FlowTrace.make),
        fork
      }, EchoFlow.dial)
      const deliver = (event: SignalingEvent) =>
        this.time.timeline.after(host.place.delayMs, () => {
          if (!host.isDown()) this.#tell(node, event)
        })
      fork(Stream.runForEach(hub.connect(plane.key, host.role), (event) => Effect.sync(() => deliver(event))))
      deliver({ ...this.#snapshotFor(node), credential: await this.#atOnce(hub.credential(plane.key)) })
    }
    fork(hub.run)
    const tick = () => {
      this.#relay.tick()
      for (const { plane } of this.nodes) if (plane.sessions !== null) Effect.runSync(plane.sessions.tick)
      this.time.timeline.after(TICK_MS, tick)
    }
    tick()
    await this.#until(() => this.nodes.every(({ plane }) => plane.router.leg !== null))
  }

  #tell(node: Node, event: SignalingEvent): void {
    node.last.onEvent(event)
    node.events.unsafeOffer(event)
    if (node.plane.sessions !== null) Effect.runSync(node.plane.sessions.onSignal(event))
  }

  /** As the data plane does whenever a RelayActor has started. */
  async #openSession({ slots }: Node): Promise<void> {
    const relay = slots.get("relay")!.ref as ActorRef<RpcsOf<typeof Relay>>
    const { session, ticket } = this.#identities
    await this.#atOnce(Effect.orDie(relay.ask((client) => client.OpenSession({ session, ticket }))))
  }

  async #until(done: () => boolean): Promise<void> {
    const limit = this.now + START_MS
    while (!done() && this.now < limit) await this.time.runUntil(this.now + 10)
    if (!done()) this.faults.push("the nodes did not get started")
  }

  async stop(): Promise<void> {
    await this.#atOnce(Fiber.interruptAll(this.#fibers))
    for (const { slots } of this.nodes) {
      for (const slot of slots.values()) await this.#atOnce(slot.kill)
    }
  }

  // ---------------------------------------------------------------------------------------------------- what may happen

  move(node: Node, place: Place): void {
    node.host.move(place)
    this.#breakLinks()
    this.time.timeline.after(NOTICE_MS, () => this.#tellNetwork(node, 0))
    this.#reconnect(node)
  }

  rebind({ host }: Node, newWan: boolean): void {
    if (newWan) host.replaceTranslator()
    else host.translator?.loseMappings()
  }

  relayRestart(ms: number): void {
    this.relayDownUntil = Math.max(this.relayDownUntil, this.now + ms)
    this.#relay = this.#startRelay()
    this.#breakLinks()
    for (const node of this.nodes) this.#reconnect(node)
  }

  linkDown(node: Node, ms: number): void {
    node.host.downUntil = Math.max(node.host.downUntil, this.now + ms)
    this.#reconnect(node)
  }

  /** The host hears and says nothing, and then its clock has jumped. */
  sleep(node: Node, ms: number): void {
    node.host.downUntil = Math.max(node.host.downUntil, this.now + ms)
    this.time.timeline.at(node.host.downUntil, () => this.#tellNetwork(node, 1))
    this.#reconnect(node)
  }

  async crash(node: Node, actor: number): Promise<void> {
    const slot = node.slots.get(ACTORS[actor % ACTORS.length]!)!
    await this.#atOnce(slot.kill)
    await this.time.runUntil(this.now + RESTART_MS)
    await this.#atOnce(slot.start)
    if (slot.name === "relay") await this.#openSession(node)
  }

  idle(ms: number): void {
    this.idleUntil = Math.max(this.idleUntil, this.now + ms)
    for (const { plane } of this.nodes) plane.setActive(false)
    this.time.timeline.at(this.idleUntil, () => {
      if (!this.active) return
      this.flow.answeredAt = this.now
      for (const { plane } of this.nodes) plane.setActive(true)
    })
  }

  get calmAt(): number {
    const hosts = this.nodes.map(({ host }) => host.downUntil)
    return Math.max(...hosts, this.lossUntil, this.directDownUntil, this.relayDownUntil, this.idleUntil)
  }

  #tellNetwork(node: Node, wakes: number): void {
    const before = Effect.runSync(SubscriptionRef.get(node.network))
    Effect.runSync(SubscriptionRef.set(node.network, this.#stateOf(node.host, before.wakes + wakes)))
  }

  /** Signaling is up again some time after the way to the relay is. */
  #reconnect(node: Node): void {
    const at = Math.max(this.now, this.relayDownUntil, node.host.downUntil) + 6 * node.host.place.delayMs +
      (this.now === 0 ? 0 : this.signalingLagMs + this.#random() * 1_000)
    this.time.timeline.at(at, () => {
      if (this.relayDownUntil > this.now || node.host.isDown()) return
      this.#tell(node, this.#snapshotFor(node))
    })
  }

  #snapshotFor(node: Node): SignalingEvent & { readonly _tag: "Snapshot" } {
    return {
      _tag: "Snapshot",
      version: Math.floor(this.now),
      serverTime: Math.floor(Date.now() / 1000),
      relay: { host: SimRelay.HOST, httpsPort: 443, udpPort: SimRelay.PORTS[0]! },
      relays: [],
      credential: node.credential
    }
  }

  #forward(from: Host, box: Uint8Array): void {
    const peer = this.#peerOf(from)
    if (from.isDown() || this.relayDownUntil > this.now) return
    this.time.timeline.after(from.place.delayMs + peer.host.place.delayMs, () => {
      if (!peer.host.isDown()) peer.plane.onForwarded(box)
    })
  }

  // ---------------------------------------------------------------------------------------------------------- the network

  #isLost(): boolean {
    return this.loss > 0 && this.now < this.lossUntil && this.#random() < this.loss
  }

  #startRelay(): RelayServer {
    const { authorityKey } = this.#identities
    const server: RelayServer = SimRelay.start({
      authorityKey,
      now: this.time.now,
      send: (port, to, bytes) => {
        if (server === this.#relay) this.#toNode(port, to, bytes) // another life of it says nothing more
      }
    })
    return server
  }

  #toNode(port: number, to: SocketAddr, bytes: Uint8Array): void {
    const node = this.nodes.find(({ host }) => host.owns(to.host))
    if (node === undefined || this.relayDownUntil > this.now || this.#isLost()) return
    this.time.timeline.after(node.host.place.delayMs, () => {
      const inside = node.host.isDown() ? undefined : node.host.translator?.in(to, { host: SimRelay.HOST, port })
      if (inside !== undefined) node.plane.onDatagram(inside, bytes, { host: SimRelay.HOST, port })
    })
  }

  readonly #network: Network = {
    send: (host, local, to, bytes) => {
      if (host.translator === null || host.isDown()) return
      const outside = host.translator.out(local, to)
      if (this.#isLost()) return
      const { timeline } = this.time
      if (to.host === SimRelay.HOST) {
        const socket = SimRelay.PORTS.indexOf(to.port)
        return timeline.after(host.place.delayMs, () => {
          if (this.relayDownUntil > this.now || socket < 0) return
          this.#relay.onUdp(bytes, { address: outside.host, port: outside.port }, socket)
        })
      }
      const peer = this.#peerOf(host)
      if (!peer.host.owns(to.host)) return
      timeline.after(host.place.delayMs + peer.host.place.delayMs + this.detourMs, () => {
        if (peer.host.isDown() || this.directDownUntil > this.now) return
        const inside = peer.host.translator?.in(to, outside)
        if (inside !== undefined) peer.plane.onDatagram(inside, bytes, outside)
      })
    },
    linkMs: (host) => 8 * host.place.delayMs,
    link: (plane, closed) => {
      const { host, key } = plane
      if (host.isDown() || this.relayDownUntil > this.now) return null
      const { timeline } = this.time
      const relay = this.#relay
      const { place } = host
      let open = true
      /** A stream: what was sent while the host was cut off arrives after that. */
      const later = (run: () => void) =>
        timeline.at(Math.max(this.now, host.downUntil) + place.delayMs, () => open && run())
      const leg: LinkLeg | null = relay.attachLink(key, {
        kind: "relay-tcp",
        bufferedBytes: () => 0,
        send: (frames) => {
          const own = Uint8Array.from(frames)
          later(() => plane.router.onLinkFrames(own))
        }
      })
      if (leg === null) return null
      const end = () => {
        if (!open) return
        open = false
        this.#links.delete(end)
        relay.detachLink(leg)
        closed()
      }
      this.#links.add(end)
      return { send: (frames) => later(() => relay.onLinkFrames(leg, frames)), close: end }
    }
  }

  #breakLinks(): void {
    for (const end of this.#links) end()
  }
}

const seeded = (random: Random) => {
  const bytes = (length: number) => Uint8Array.from({ length }, () => Math.floor(random() * 256))
  return Layer.succeed(Crypto.Crypto, {
    randomBytes: (length) => Effect.sync(() => bytes(length)),
    randomHex: (length) => Effect.sync(() => Buffer.from(bytes(length)).toString("hex"))
  })
}
