/**
 * A session with its permission: the connection to the peer, the grant that says what may flow, the
 * control stream, and the flows. The client opens flows and delivers new grants. The connector
 * verifies both, every time.
 */
import { Either } from "effect"
import { tagFromHex } from "../../protocol/bytes/Frame.ts"
import * as HostName from "../../protocol/bytes/HostName.ts"
import type { Target, VerdictCode } from "../../protocol/flow/FlowWire.ts"
import type { SessionMessage } from "../../protocol/flow/SessionWire.ts"
import type { LegKind } from "../../protocol/path/PathKind.ts"
import { type PathRef, type Role } from "../../protocol/path/PathRef.ts"
import type { Grant, Outage, Ticket } from "../../protocol/trust/Documents.ts"
import { type NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as Signed from "../../protocol/trust/Signed.ts"
import { ControlStream } from "../../session/ControlStream.ts"
import { FlowCount } from "../../session/core/FlowCount.ts"
import * as GrantAnswer from "../../session/core/GrantAnswer.ts"
import type * as FlowStart from "../../session/FlowStart.ts"
import { type Clocks, Permission } from "../../session/Permission.ts"
import type { QuicEngine } from "../quic/engine/QuicEngine.ts"
import { connectionIdOf, type SavedSessions } from "../quic/engine/Resumption.ts"
import { CloseCode, type CloseReason } from "../quic/QuicSession.ts"
import { ConnectorFlows, type ConnectorFlowsOptions, type FlowLimits } from "./ConnectorFlows.ts"
import type { PacketRouter } from "./PacketRouter.ts"
import { newSecret, PeerSession, type PeerSessionEvents } from "./PeerSession.ts"

/** Callbacks of a session, including the path events of its `PeerSession`. */
export interface FlowSessionEvents extends Omit<PeerSessionEvents, "onUp" | "onStream" | "onDown"> {
  /**
   * Called when the session can carry flows. On a connector, path messages work from then on, too.
   */
  readonly onUp: (session: FlowSession) => void
  readonly onDown: (session: FlowSession, reason: CloseReason) => void
  /** Called when the client asks for a flow. Connector only. */
  readonly onFlow: ConnectorFlowsOptions["onFlow"]
  /** Called with each signal of the WebRTC path, as in `IceSignal`. */
  readonly onIce: (signal: Uint8Array) => void
}

/** Settings that stay the same while the node runs. */
export interface NodeContext extends Clocks {
  readonly role: Role
  readonly key: NodeKey
  readonly router: PacketRouter
  readonly engine: QuicEngine
  /** Certificate of this node, as PEM. */
  readonly certificate: string
  readonly privateKey: string
  readonly keyOfCertificate: (der: Uint8Array) => string | null
  /** Saved TLS sessions, from which a client resumes. */
  readonly savedSessions: SavedSessions
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /**
   * Verifies a grant: the authority must have signed it, and it must be valid now. Otherwise
   * returns the reason, for people.
   */
  readonly openGrant: (signed: Signed.Signed) => Either.Either<Grant, string>
  /**
   * Verifies an outage permit in the same way. If omitted, grants of the peer never count after
   * their end.
   */
  readonly openOutage?: (signed: Signed.Signed) => Either.Either<Outage, string>
  /** Leg by which this node reaches its relay now. `null` if there is none. */
  readonly leg: () => LegKind | null
  /** Limits of the flows that a connector takes. */
  readonly flowLimits?: FlowLimits
  /** Function by which a connector reaches resources. Default: over TCP. */
  readonly dial?: ConnectorFlowsOptions["dial"]
}

/** A verified outage permit, decoded and as it was signed. */
export interface OpenedOutage {
  readonly document: Outage
  readonly signed: Signed.Signed
}

/** Documents with which a session begins. `outage` is `null` if the relay sent none. */
export interface Documents {
  readonly grant: Grant
  readonly outage?: Outage | null
  readonly ticket: Ticket
}

/** One session of a client or a connector, from its dial to its end. */
export class FlowSession {
  readonly id: string
  readonly peer: PeerSession
  readonly #node: NodeContext
  readonly #events: FlowSessionEvents
  readonly #served: ConnectorFlows
  readonly #permission: Permission
  #control: ControlStream | null = null
  /** Flows that run or are being opened by this client. */
  readonly #asked: FlowCount
  peerLeg: LegKind | null = null
  #leaving = false

  /**
   * `ticketKey` is the key of `TicketKeys` for this session; for connectors. `peerWritten` is the
   * peer's name as the relay says that its administrator wrote it.
   */
  constructor(
    node: NodeContext,
    { grant, outage = null, ticket }: Documents,
    events: FlowSessionEvents,
    ticketKey: Uint8Array | null = null,
    peerWritten?: string
  ) {
    this.id = ticket.session
    this.#node = node
    this.#events = events
    const isClient = node.role === "client"
    const peerKey = isClient ? grant.connectorKey : grant.clientKey
    // These are the keys that the session's two ends prove.
    const parties = { clientKey: isClient ? node.key : peerKey, connectorKey: isClient ? peerKey : node.key }
    this.#permission = new Permission(grant, parties, node, outage)
    this.#asked = new FlowCount(node.now)
    this.#served = new ConnectorFlows({
      client: peerKey,
      permit: (target) => this.#permission.permit(target),
      onControl: (stream, early) => {
        this.#control = new ControlStream(stream, this.#controlEvents, early)
        this.tellLeg()
      },
      onFlow: (asked) => {
        this.#asked.touch()
        return events.onFlow(asked)
      },
      ...(node.flowLimits && { limits: node.flowLimits }),
      ...(node.dial && { dial: node.dial })
    })
    const clientTag = tagFromHex(ticket.clientTag)
    const connectorTag = tagFromHex(ticket.connectorTag)
    this.peer = new PeerSession({
      id: ticket.session,
      role: node.role,
      peerKey,
      peerName: HostName.shown(isClient ? grant.connectorName : grant.clientName, peerWritten),
      sendTag: isClient ? clientTag : connectorTag,
      receiveTag: isClient ? connectorTag : clientTag,
      router: node.router,
      engine: node.engine,
      resumption: {
        clientId: connectionIdOf(ticket.session),
        savedSession: isClient ? node.savedSessions.take(grant.connectorKey, node.hostMs()) : null,
        ticketKey
      },
      onSavedSession: (session) => node.savedSessions.keep(grant.connectorKey, session, node.hostMs()),
      certificate: node.certificate,
      privateKey: node.privateKey,
      keyOfCertificate: node.keyOfCertificate,
      now: node.now,
      events: {
        ...events,
        onUp: () => this.#onUp(),
        onStream: (stream) => this.#served.onStream(stream),
        onDown: (reason) => events.onDown(this, reason)
      }
    })
  }

  get grant(): Grant {
    return this.#permission.grant
  }

  /** Seconds until the grant itself expires. Negative while it counts because of an outage. */
  get leftSeconds(): number {
    return this.#permission.leftSeconds
  }

  /** When the grant ends while no directory is reached, in epoch seconds. */
  get outageEndsAt(): number {
    return this.#permission.outageEndsAt
  }

  get path(): PathRef {
    return this.peer.path
  }

  /** Whether the peer has asked for no more flows in this session. */
  get isLeaving(): boolean {
    return this.#leaving
  }

  /** Flows that are open or being opened. */
  get flows(): number {
    return this.#asked.flows + this.#served.flows.size
  }

  /** When a flow last began or ended, by `node.now()`. */
  get lastFlowAt(): number {
    return this.#asked.lastAt
  }

  /** Whether the session's grant names this target, so that no new dial is needed. */
  permits(target: Target): boolean {
    return !this.#leaving && typeof this.#permission.permit(target) !== "string"
  }

  /**
   * Takes a grant for the same two nodes. A grant that is not newer than the current one is
   * ignored, because grants arrive from two sources. A client forwards a new grant to the
   * connector, with its outage permit. A connector ends flows that the new grant does not permit.
   * Returns `false` if the grant is for other nodes or not valid now.
   */
  setGrant(grant: Grant, signed: Signed.Signed, outage: OpenedOutage | null = null): boolean {
    const taken = this.#permission.replace(grant, outage?.document)
    if (taken !== "taken") return taken === "older"
    if (this.#node.role === "client") {
      this.#control?.send({ _tag: "Grant", signed: Signed.toBytes(signed) })
      if (outage !== null) this.#control?.send({ _tag: "Outage", signed: Signed.toBytes(outage.signed) })
    } else this.#served.recheck((target) => typeof this.#permission.permit(target) !== "string")
    return true
  }

  /**
   * Returns the grant's name for this target's resource. `null` if the grant does not permit the
   * target.
   */
  resourceOf(target: Target): string | null {
    const permit = this.#permission.permit(target)
    return typeof permit === "string" ? null : permit.resource.name
  }

  /** Reason why the grant no longer permits anything. `null` if it still does. */
  standing(): VerdictCode | null {
    return this.#permission.standing()
  }

  /** Notifies the peer of the leg by which this node reaches its relay. */
  tellLeg(): void {
    const kind = this.#node.leg()
    if (kind !== null) this.#control?.send({ _tag: "Leg", kind })
  }

  /**
   * Sends a signal of the WebRTC path, as in `IceSignal`. It is dropped while there is no control
   * stream.
   */
  sendIce(signal: Uint8Array): void {
    this.#control?.send({ _tag: "Ice", signal })
  }

  /**
   * Opens a flow. Client only. `done` is called once, unless the returned function cancels the flow
   * first. When an accepted flow has ended, call `flowEnded`.
   */
  openFlow(
    target: Target & { readonly traceparent: string | null },
    done: (answer: FlowStart.Answer) => void
  ): () => void {
    return this.#asked.open(this.peer.quic, target, done)
  }

  /** Must be called once for each accepted flow of {@link openFlow} when it has ended. */
  flowEnded(): void {
    this.#asked.ended()
  }

  /** Asks the peer to open no new flows in this session. Running flows continue. */
  goAway(reason: string): void {
    this.#control?.send({ _tag: "Goaway", reason })
  }

  /** Ends the session and notifies the peer of the reason. */
  close(code: number, text: string): void {
    this.peer.close(code, text)
  }

  #onUp(): void {
    if (this.#node.role === "client") {
      const stream = this.peer.quic.openStream()
      if (stream === null) return this.close(CloseCode.normal, "no control stream")
      this.#control = ControlStream.open(stream, this.#controlEvents)
      const secret = newSecret()
      this.#control.send({ _tag: "ProbeSecret", secret })
      this.peer.useSecret(secret)
      this.tellLeg()
      this.#events.onUp(this)
    }
  }

  readonly #controlEvents = {
    onMessage: (message: SessionMessage): void => this.#onMessage(message),
    onBroken: (why: string): void => this.close(CloseCode.normal, why)
  }

  #onMessage(message: SessionMessage): void {
    switch (message._tag) {
      case "ProbeSecret":
        if (this.#node.role !== "connector") return
        this.peer.useSecret(message.secret)
        return this.#events.onUp(this)
      case "Grant":
        return this.#onGrant(message.signed)
      case "Outage":
        return this.#onOutage(message.signed)
      case "Leg":
        this.peerLeg = message.kind
        return
      case "GrantRefused":
        return this.close(CloseCode.denied, `the connector refused the grant: ${message.reason}`)
      case "Goaway":
        this.#leaving = true
        return
      case "Ice":
        return this.#events.onIce(message.signal)
      case "GrantAck":
        return
    }
  }

  #onOutage(bytes: Uint8Array): void {
    const { openOutage, role } = this.#node
    if (role !== "connector" || openOutage === undefined) return
    const permit = Either.flatMap(Signed.fromBytes(bytes), openOutage)
    if (Either.isRight(permit)) this.#permission.prolong(permit.right)
  }

  #onGrant(bytes: Uint8Array): void {
    if (this.#node.role !== "connector") return
    const take = (grant: Grant, signed: Signed.Signed) => this.setGrant(grant, signed)
    this.#control?.send(GrantAnswer.answer(bytes, { open: this.#node.openGrant, take }))
  }
}
