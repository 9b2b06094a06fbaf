/**
 * A session with its permission: the connection to the peer, the grant that says what may flow, the control stream, and the
 * flows. The client opens flows and brings new grants; the connector verifies both, every time.
 */
import { Either } from "effect"
import type { Grant, Ticket } from "../../protocol/Documents.ts"
import type { VerdictCode } from "../../protocol/FlowWire.ts"
import { tagFromHex } from "../../protocol/Frame.ts"
import { type NodeKey } from "../../protocol/NodeKey.ts"
import { type PathRef, type Role } from "../../protocol/PathRef.ts"
import type { LegKind, SessionMessage } from "../../protocol/SessionWire.ts"
import * as Signed from "../../protocol/Signed.ts"
import * as FlowStart from "../flow/FlowStart.ts"
import type { QuicEngine } from "../quic/QuicEngine.ts"
import { CloseCode, type CloseReason } from "../quic/QuicSession.ts"
import { connectionIdOf, type SavedSessions } from "../quic/Resumption.ts"
import { ConnectorFlows, type ConnectorFlowsOptions, type FlowLimits } from "./ConnectorFlows.ts"
import { ControlStream } from "./ControlStream.ts"
import type { PacketRouter } from "./PacketRouter.ts"
import { newSecret, PeerSession, type PeerSessionEvents } from "./PeerSession.ts"
import { Permission } from "./Permission.ts"

export interface FlowSessionEvents extends Omit<PeerSessionEvents, "onUp" | "onStream" | "onDown"> {
  /** Client: the session takes flows. Connector: it does, and path messages are understood. */
  readonly onUp: (session: FlowSession) => void
  readonly onDown: (session: FlowSession, reason: CloseReason) => void
  /** Connector: the client asks for a flow. */
  readonly onFlow: ConnectorFlowsOptions["onFlow"]
  /** As in `IceSignal`. */
  readonly onIce: (signal: Uint8Array) => void
}

/** What does not change while the node runs. */
export interface NodeContext {
  readonly role: Role
  readonly key: NodeKey
  readonly router: PacketRouter
  readonly engine: QuicEngine
  /** PEM. */
  readonly certificate: string
  readonly privateKey: string
  readonly keyOfCertificate: (der: Uint8Array) => string | null
  /** Client: what it resumes from. */
  readonly savedSessions: SavedSessions
  /** Milliseconds, monotonic. */
  readonly now: () => number
  /** `HostClock`: unlike `now`, it goes on while the machine sleeps. */
  readonly hostMs: () => number
  /** Epoch seconds by the directory's clock; NaN before it is known. */
  readonly nowSeconds: () => number
  /** The grant if the authority signed it and it is valid now; else why not, for people. */
  readonly openGrant: (signed: Signed.Signed) => Either.Either<Grant, string>
  readonly leg: () => LegKind | null
  /** Connector: how many flows it takes. */
  readonly flowLimits?: FlowLimits
}

export class FlowSession {
  readonly id: string
  readonly peer: PeerSession
  readonly #node: NodeContext
  readonly #events: FlowSessionEvents
  readonly #served: ConnectorFlows
  readonly #permission: Permission
  #control: ControlStream | null = null
  /** Client: flows that run or are being opened. */
  #asked = 0
  /** `node.now()` when a flow last began or ended. */
  lastFlowAt: number
  peerLeg: LegKind | null = null
  /** The peer wants no new flows. */
  #leaving = false

  /** `ticketKey`: connector; what `TicketKeys` gave for this session. */
  constructor(
    node: NodeContext,
    ticket: Ticket,
    grant: Grant,
    events: FlowSessionEvents,
    ticketKey: Uint8Array | null = null
  ) {
    this.id = ticket.session
    this.#node = node
    this.#events = events
    const isClient = node.role === "client"
    const peerKey = isClient ? grant.connectorKey : grant.clientKey
    // The keys that this session's two ends have proved.
    const parties = { clientKey: isClient ? node.key : peerKey, connectorKey: isClient ? peerKey : node.key }
    this.#permission = new Permission(grant, parties, node)
    this.lastFlowAt = node.now()
    this.#served = new ConnectorFlows({
      client: peerKey,
      permit: (host, port) => this.#permission.permit(host, port),
      onControl: (stream, early) => {
        this.#control = new ControlStream(stream, this.#controlEvents, early)
        this.tellLeg()
      },
      onFlow: (asked) => {
        this.lastFlowAt = node.now()
        return events.onFlow(asked)
      },
      ...(node.flowLimits && { limits: node.flowLimits })
    })
    const clientTag = tagFromHex(ticket.clientTag)
    const connectorTag = tagFromHex(ticket.connectorTag)
    this.peer = new PeerSession({
      id: ticket.session,
      role: node.role,
      peerKey,
      peerName: isClient ? grant.connectorName : grant.clientName,
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

  /** How long the grant still lasts. */
  get leftSeconds(): number {
    return this.#permission.leftSeconds
  }

  get path(): PathRef {
    return this.peer.path
  }

  /** Open or being opened. */
  get flows(): number {
    return this.#asked + this.#served.flows.size
  }

  /** Whether the session's grant names this target, so that no new dial is needed. */
  permits(host: string, port: number): boolean {
    return !this.#leaving && typeof this.#permission.permit(host, port) !== "string"
  }

  /**
   * A grant for the same two nodes; one that is not newer than the one in force is passed over, since grants come by two ways.
   * The client passes it on; the connector cuts what it no longer permits. False: it is for others.
   */
  setGrant(grant: Grant, signed: Signed.Signed): boolean {
    const taken = this.#permission.replace(grant)
    if (taken !== "taken") return taken === "older"
    if (this.#node.role === "client") this.#control?.send({ _tag: "Grant", signed: Signed.toBytes(signed) })
    else this.#served.recheck((host, port) => typeof this.#permission.permit(host, port) !== "string")
    return true
  }

  /** What the grant calls this target; null: it lists none such. */
  resourceOf(host: string, port: number): string | null {
    const permit = this.#permission.permit(host, port)
    return typeof permit === "string" ? null : permit.resource.name
  }

  /** Why the grant is of no more use; null: it is. */
  standing(): VerdictCode | null {
    return this.#permission.standing()
  }

  tellLeg(): void {
    const kind = this.#node.leg()
    if (kind !== null) this.#control?.send({ _tag: "Leg", kind })
  }

  /** As in `IceSignal`. Dropped before the control stream is there. */
  sendIce(signal: Uint8Array): void {
    this.#control?.send({ _tag: "Ice", signal })
  }

  /** Client: opens a flow; `done` once, unless the returned function gave it up. Tell `flowEnded` when an accepted one is over. */
  openFlow(
    target: { readonly host: string; readonly port: number; readonly traceparent: string | null },
    done: (answer: FlowStart.Answer) => void
  ): () => void {
    const { host, port, traceparent } = target
    this.#asked++
    this.lastFlowAt = this.#node.now()
    const giveUp = FlowStart.request(
      this.peer.quic,
      { kind: "tcp", resource: "", host, port, traceparent },
      (answer) => {
        if (answer._tag === "Rejected") this.flowEnded()
        done(answer)
      }
    )
    return () => {
      giveUp()
      this.flowEnded()
    }
  }

  flowEnded(): void {
    this.#asked--
    this.lastFlowAt = this.#node.now()
  }

  /** New flows go elsewhere; those that run may end in peace. */
  goAway(reason: string): void {
    this.#control?.send({ _tag: "Goaway", reason })
  }

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
      case "Candidates": // these travel as sealed path messages, which need no stream
      case "Switch":
        return
    }
  }

  #onGrant(bytes: Uint8Array): void {
    if (this.#node.role !== "connector") return
    const signed = Signed.fromBytes(bytes)
    const grant = Either.flatMap(signed, this.#node.openGrant)
    if (Either.isLeft(grant) || Either.isLeft(signed)) {
      const reason = Either.isLeft(grant) ? grant.left : "not valid here"
      return this.#control?.send({ _tag: "GrantRefused", reason })
    }
    if (!this.setGrant(grant.right, signed.right)) {
      return this.#control?.send({ _tag: "GrantRefused", reason: "for others" })
    }
    this.#control?.send({ _tag: "GrantAck", id: grant.right.id })
  }
}
