/**
 * A node's data plane in the simulation: the real router, session, seals and sockets for guessing, over modelled QUIC and a modelled
 * network. What the StreamMuxActor adds (dials, grants, doors) is left out: one session is there from the start. In a world with a
 * hub (`useSessions`) dials and grants are the real ones, too.
 */
import { Effect, Either, PubSub, Stream } from "effect"
import { MuxMetrics } from "../../../src/actors/mux/MuxMetrics.ts"
import * as Sessions from "../../../src/actors/mux/sessions/Sessions.ts"
import { LINK_ADDRESS, LinkUnavailable, StreamMuxRpcs } from "../../../src/actors/mux/StreamMuxRpcs.ts"
import type { PathEvent } from "../../../src/actors/path/PathProberRpcs.ts"
import type { ControlDatagram } from "../../../src/actors/stun/StunRpcs.ts"
import type { SocketAddr } from "../../../src/protocol/bytes/SocketAddr.ts"
import { LARGEST_BYTES } from "../../../src/protocol/path/PathMtu.ts"
import { isImprovement } from "../../../src/protocol/path/PathReason.ts"
import { RELAY } from "../../../src/protocol/path/PathRef.ts"
import type { NodeKey } from "../../../src/protocol/trust/NodeKey.ts"
import * as Authority from "../../../src/services/identity/Authority.ts"
import type { NodeContext } from "../../../src/transport/plane/FlowSession.ts"
import { type Leg, PacketRouter, type Port } from "../../../src/transport/plane/PacketRouter.ts"
import { PeerSession } from "../../../src/transport/plane/PeerSession.ts"
import type { QuicEngine } from "../../../src/transport/quic/engine/QuicEngine.ts"
import { SavedSessions, TicketKeys } from "../../../src/transport/quic/engine/Resumption.ts"
import type { QuicStream } from "../../../src/transport/quic/QuicStream.ts"
import { GuessSockets } from "../../../src/transport/udp/GuessSockets.ts"
import type { Options as UdpOptions, UdpPort } from "../../../src/transport/udp/UdpPort.ts"
import type { Host } from "../world/Host.ts"

const SESSION = "0123456789abcdef0123456789abcdef"
const SEGMENT_BYTES = LARGEST_BYTES + 8

export interface Network {
  /** What leaves a host by one of its ports. */
  readonly send: (host: Host, local: number, to: SocketAddr, bytes: Uint8Array) => void
  /** A link to the relay, which ends by `closed`; null: it cannot be opened now. */
  readonly link: (
    plane: SimPlane,
    closed: () => void
  ) => { readonly send: (frames: Uint8Array) => void; readonly close: () => void } | null
  /** A link takes so long to open, ms. */
  readonly linkMs: (host: Host) => number
}

export interface Options {
  readonly host: Host
  readonly network: Network
  readonly engine: QuicEngine
  readonly now: () => number
  readonly key: NodeKey
  readonly peerKey: NodeKey
  readonly sendTag: number
  readonly receiveTag: number
  /** The client's; told to the connector by the first stream. */
  readonly secret: Uint8Array
  readonly forward: (box: Uint8Array) => void
  readonly onStream: (stream: QuicStream) => void
  readonly onDown: (why: string) => void
}

export class SimPlane {
  readonly host: Host
  readonly key: NodeKey
  readonly router: PacketRouter
  /** The sessions that dials make. Null while the session of `begin` is the only one. */
  sessions: ReturnType<typeof Sessions.make> | null = null
  #session: PeerSession | null = null
  readonly #options: Options
  readonly #events = Effect.runSync(PubSub.unbounded<PathEvent>())
  readonly #control = {
    stun: Effect.runSync(PubSub.unbounded<ControlDatagram>()),
    relay: Effect.runSync(PubSub.unbounded<ControlDatagram>())
  }
  readonly #guesses: GuessSockets
  /** What sockets beside the usual one read, by their port. */
  readonly #further = new Map<number, (bytes: Buffer, from: { address: string; port: number }) => void>()
  #candidates: (PathEvent & { readonly _tag: "PeerCandidates" }) | null = null
  #active = true
  #link: { readonly send: (frames: Uint8Array) => void; readonly close: () => void } | null = null
  #linkEnded: Array<() => void> = []

  constructor(options: Options) {
    this.#options = options
    this.host = options.host
    this.key = options.key
    this.router = new PacketRouter((kind, bytes, address, port) => {
      const from = { host: address === "" ? LINK_ADDRESS.host : address, port: port === 0 ? LINK_ADDRESS.port : port }
      this.#control[kind].unsafeOffer({ from, bytes: Uint8Array.from(bytes) })
    })
    this.#guesses = new GuessSockets({
      router: this.router,
      segment: SEGMENT_BYTES,
      open: (udp) => Promise.resolve(this.#openFurther(udp)),
      onSampled: (session, local, mapped) => this.#publish({ _tag: "GuessSampled", session, local, mapped }),
      onRefused: (session, count, code) => this.#publish({ _tag: "GuessRefused", session, count, code })
    })
    this.#bind()
  }

  get session(): PeerSession | null {
    return this.sessions === null ? this.#session : this.sessions.all().at(-1)?.peer ?? null
  }

  get guessSockets(): number {
    return this.#guesses.count
  }

  /** The session begins, as soon as the relay carries it. */
  begin(): void {
    const { host: { role }, key, now, onDown, onStream, peerKey, receiveTag, secret, sendTag } = this.#options
    const session = new PeerSession({
      id: SESSION,
      role,
      peerKey,
      peerName: role === "client" ? "office" : "laptop",
      sendTag,
      receiveTag,
      router: this.router,
      engine: this.#options.engine,
      resumption: { clientId: new Uint8Array(16), savedSession: null, ticketKey: null },
      onSavedSession: () => {},
      certificate: key,
      privateKey: "",
      keyOfCertificate: (der) => Buffer.from(der).toString(),
      now,
      events: {
        onUp: () => {
          session.useSecret(secret)
          this.#publish(this.#up(session))
          onStreamUp()
        },
        onStream,
        onDown: (reason) => onDown(`${reason.kind}: ${reason.text}`),
        onCandidates: (seq, list, mapping) => {
          const event = { _tag: "PeerCandidates" as const, session: SESSION, seq, list, mapping }
          if (seq >= (this.#candidates?.seq ?? 0)) this.#candidates = event
          this.#publish(event)
        },
        onCandidatesAck: (seq) => this.#publish({ _tag: "CandidatesAcked", session: SESSION, seq }),
        onPing: (path) => this.#publish({ _tag: "PingSeen", session: SESSION, path }),
        onPong: (path, txId, rttMs, observed) =>
          this.#publish({ _tag: "Pong", session: SESSION, path, txId, rttMs, observed }),
        onHeard: (path) => this.#publish({ _tag: "Heard", session: SESSION, path }),
        onTraffic: (moving) => this.#publish({ _tag: "Traffic", session: SESSION, moving }),
        onSwitchRequest: (reason) => this.#publish({ _tag: "SwitchRequested", session: SESSION, reason }),
        onOpened: (opened) => this.#publish({ _tag: "PeerOpened", session: SESSION, opened }),
        onPath: (path) => {
          if (role === "connector") this.#publish({ _tag: "PeerSelected", session: SESSION, path })
        }
      }
    })
    const onStreamUp = () => {
      const stream = role === "client" ? session.quic.openStream() : null
      if (stream !== null) onStream(stream)
    }
    this.#session = session
  }

  /** Sessions as dials make them, with what permits them. The caller calls their `tick` every second. */
  useSessions(
    options: Pick<Sessions.Options, "authorityKey" | "signaling" | "relay" | "traces" | "fork">,
    dial: NonNullable<NodeContext["dial"]>
  ): void {
    const { engine, host: { role }, key, now } = this.#options
    const nowSeconds = () => Math.floor(Date.now() / 1000)
    this.sessions = Sessions.make({
      ...options,
      draining: false,
      node: {
        role,
        key,
        router: this.router,
        engine,
        certificate: key,
        privateKey: "",
        keyOfCertificate: (der) => Buffer.from(der).toString(),
        savedSessions: new SavedSessions(),
        now,
        hostMs: now,
        nowSeconds,
        openGrant: (signed) =>
          Either.mapLeft(Authority.verify("grant", signed, options.authorityKey, nowSeconds()), (it) => it.message),
        leg: () => this.router.leg?.kind ?? null,
        dial
      },
      ticketKeys: new TicketKeys(),
      timeKnown: Effect.void,
      publish: (event) => {
        if (event._tag === "SessionDown") this.#guesses.forget(event.session)
        this.#publish(event)
      },
      onIce: () => undefined,
      onRefused: () => undefined,
      metrics: new MuxMetrics(),
      webRtc: false
    })
  }

  #up(session: PeerSession): PathEvent {
    const { path, peerName: peer, role } = session
    return { _tag: "SessionUp", session: SESSION, role, peer, path, active: this.#active }
  }

  onDatagram(local: number, bytes: Uint8Array, from: SocketAddr): void {
    const read = Buffer.from(bytes)
    const source = { address: from.host, port: from.port }
    if (local === this.host.port) this.router.onDatagrams(read, source)
    else this.#further.get(local)?.(read, source)
  }

  /** A sealed message that came by signaling. */
  onForwarded(box: Uint8Array): void {
    this.session?.onSealed(box, null, 0)
  }

  setActive(active: boolean): void {
    this.#active = active
    if (this.session?.up === true) this.#publish({ _tag: "Activity", session: SESSION, active })
  }

  #publish(event: PathEvent): void {
    this.#events.unsafeOffer(event)
  }

  #bind(): void {
    this.router.v4 = this.#portFrom(() => this.host.port)
  }

  #portFrom(local: () => number): Port {
    const send = (bytes: Uint8Array, offset: number, length: number, port: number, host: string) =>
      this.#options.network.send(this.host, local(), { host, port }, bytes.slice(offset, offset + length))
    return {
      send,
      sendTrain: (bytes, length, segment, port, host) => {
        for (let at = 0; at < length; at += segment) send(bytes, at, Math.min(segment, length - at), port, host)
      }
    }
  }

  #openFurther({ onMessage }: UdpOptions): UdpPort {
    const local = this.host.freePort()
    this.#further.set(
      local,
      (bytes, { address, port }) => onMessage(bytes, { address, port, family: "IPv4", size: bytes.length })
    )
    const udp = {
      ...this.#portFrom(() => local),
      closed: false,
      address: () => ({ host: "0.0.0.0", port: local }),
      close: () => {
        udp.closed = true
        this.#further.delete(local)
      }
    }
    return udp as unknown as UdpPort // the part of it that is used
  }

  #endLink(): void {
    this.#link = null
    for (const tell of this.#linkEnded.splice(0)) tell()
  }

  readonly #openLink = Effect.suspend(() => Effect.sleep(this.#options.network.linkMs(this.host))).pipe(
    Effect.zipRight(Effect.suspend(() => {
      this.#link?.close()
      const link = this.#options.network.link(this, () => this.#link === link && this.#endLink())
      this.#link = link
      return link === null
        ? new LinkUnavailable({ message: "no relay" })
        : Effect.succeed("relay-tcp" as const)
    }))
  )

  #leg(choice: { kind: "relay-udp"; relay: SocketAddr } | { kind: "link" } | null): Leg | null {
    if (choice === null) return null
    if (choice.kind === "relay-udp") {
      return { kind: choice.kind, family: 4, address: choice.relay.host, port: choice.relay.port }
    }
    const link = this.#link
    return link === null ? null : { kind: "relay-tcp", send: (frames) => link.send(Uint8Array.from(frames)) }
  }

  #with(use: (session: PeerSession) => void) {
    return Effect.sync(() => {
      if (this.session !== null) use(this.session)
    })
  }

  readonly layer = StreamMuxRpcs.toLayer(Effect.sync(() =>
    StreamMuxRpcs.of({
      TakeConfiguredPort: () => Effect.succeed(false),
      LocalPorts: () => Effect.sync(() => ({ v4: this.host.port })),
      RebindSockets: () =>
        Effect.sync(() => {
          this.#guesses.forgetAll()
          this.host.port = this.host.freePort()
        }),
      SendControl: ({ bytes, to }) =>
        Effect.sync(() => {
          if (to.host === LINK_ADDRESS.host && to.port === LINK_ADDRESS.port) this.#link?.send(Uint8Array.from(bytes))
          else this.router.v4?.send(bytes, 0, bytes.length, to.port, to.host)
        }),
      ControlDatagrams: ({ kind }) => Stream.fromPubSub(this.#control[kind]),
      OpenLink: () => this.#openLink,
      ReplaceLinkByHttp3: () => new LinkUnavailable({ message: "the simulated relay has no HTTP/3" }),
      CloseLink: () =>
        Effect.sync(() => {
          this.#link?.close()
          this.#link = null
        }),
      LinkEnded: () =>
        Effect.async<void>((resume) => {
          if (this.#link === null) resume(Effect.void)
          else this.#linkEnded.push(() => resume(Effect.void))
        }),
      UseLeg: ({ leg }) =>
        Effect.sync(() => {
          this.router.leg = this.#leg(leg)
          const kind = this.router.leg?.kind ?? null
          this.#publish({ _tag: "RelayLeg", kind })
          if (kind !== null) this.session?.onRelayBound(RELAY)
        }),
      UseRelay: () => Effect.void,
      PathEvents: () =>
        Stream.unwrapScoped(Effect.gen(this, function*() {
          const later = yield* PubSub.subscribe(this.#events)
          this.#guesses.closeAll()
          const first: Array<PathEvent> = [{ _tag: "RelayLeg", kind: this.router.leg?.kind ?? null }]
          if (this.sessions !== null) first.push(...this.sessions.snapshot())
          else if (this.session?.up === true) {
            first.push(this.#up(this.session))
            if (this.#candidates !== null) first.push(this.#candidates)
          }
          return Stream.concat(Stream.fromIterable(first), Stream.fromQueue(later))
        })),
      SendPing: ({ padTo, path, txId }) => this.#with((session) => session.sendPing(path, txId, padTo)),
      AskRead: ({ session }) => Effect.sync(() => this.#publish({ _tag: "SocketsRead", session })),
      SendCandidates: ({ list, mapping, seq }) =>
        this.#with((session) => {
          const told = this.router.direct ? { list, mapping } : { list: [] }
          const message = { _tag: "Candidates" as const, seq, ...told }
          const box = session.sealed(message)
          session.sendOnAllPaths(message)
          if (box !== null) this.#options.forward(box)
        }),
      KeepPath: () => Effect.void,
      SelectPath: ({ path, reason }) =>
        path.kind === "direct" && !this.router.direct
          ? Effect.void
          : this.#with((session) => session.select(path, !isImprovement(reason))),
      SetPacketSize: ({ bytes, path }) => this.#with((session) => session.setPacketSize(path, bytes)),
      RequestSwitch: ({ reason }) => this.#with((session) => session.sendOnAllPaths({ _tag: "Switch", reason })),
      SampleGuess: ({ count, session }) => {
        const { leg } = this.router
        const server = leg?.kind === "relay-udp" ? { host: leg.address, port: leg.port } : null
        return Effect.promise(() => this.#guesses.sample(session, count, server))
      },
      OpenGuess: ({ count, session, to }) => {
        const frame = this.session?.guessFrame() ?? null
        return frame === null ? Effect.void : Effect.promise(() => this.#guesses.openTo(session, to, count, frame))
      },
      CloseGuess: ({ session }) => Effect.sync(() => this.#guesses.close(session)),
      SendGuesses: ({ to }) =>
        this.#with((session) => {
          const frame = session.guessFrame()
          if (frame === null) return
          for (const { host, port } of to) this.router.portTo(4, host, port)?.send(frame, 0, frame.length, port, host)
        }),
      TellOpened: ({ opened }) => this.#with((session) => session.sendByRelay({ _tag: "Opened", opened })),
      IceEvents: () => Stream.never,
      SendIce: () => Effect.void,
      TagsOf: () => Effect.succeed(null),
      Status: () => Effect.succeed([]),
      Refusals: () => Effect.succeed([]),
      SetListeners: () => Effect.void,
      SetOfflineAccess: () => Effect.void,
      Outage: () => Effect.succeed(null),
      SetDirect: ({ allowed }) => Effect.sync(() => this.sessions?.setDirect(allowed)),
      Listeners: () => Effect.succeed([]),
      SetDraining: () => Effect.never
    })
  ))
}

export { SESSION }
