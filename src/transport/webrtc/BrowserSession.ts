/**
 * The connector's end of a session with a browser. It holds the grant that says what may flow, the
 * WebRTC connections that carry the flows, and the control stream, which is the first stream that
 * the browser opens. It is the counterpart of `FlowSession` over QUIC.
 */
import type { Either } from "effect"
import type { IceServer } from "node-datachannel"
import { TokenBucket } from "../../protocol/bytes/TokenBucket.ts"
import type { IceSignal } from "../../protocol/candidate/IceSignal.ts"
import type { SessionMessage } from "../../protocol/flow/SessionWire.ts"
import type { Grant, Ticket } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type * as Signed from "../../protocol/trust/Signed.ts"
import type { Room } from "../../session/ChannelStream.ts"
import { ControlStream } from "../../session/ControlStream.ts"
import * as GrantAnswer from "../../session/core/GrantAnswer.ts"
import { type Clocks, Permission } from "../../session/Permission.ts"
import { ConnectorFlows, type ConnectorFlowsOptions, type FlowLimits } from "../plane/ConnectorFlows.ts"
import { FlowLink } from "./FlowLink.ts"
import type { Pair } from "./IceLink.ts"
import type { AgentPasswords } from "./TurnProxy.ts"

/**
 * Most connections of one session at a time. Flows beyond the capacity of one connection use
 * another.
 */
const MAX_LINKS = 4
/**
 * Connections per second that a browser may begin. Each costs sockets and a gathering of
 * candidates.
 */
const OFFERS_PER_SECOND = 0.5
/** Connections that a browser may begin at once. It needs one, or four. */
const OFFERS_BURST = 12
/** Bytes that all flows of a session together may hold unread beyond their first windows. */
const ROOM_BYTES = 32 * 1024 * 1024

/** Options of {@link BrowserSession}. */
export interface Options {
  readonly ticket: Ticket
  readonly grant: Grant
  /** Key of this connector. */
  readonly key: NodeKey
  readonly clocks: Clocks
  /**
   * Verifies a grant. Returns it if the authority signed it and it is valid now, otherwise a reason
   * in plain words.
   */
  readonly openGrant: (signed: Signed.Signed) => Either.Either<Grant, string>
  /** Passwords of this process's ICE agents. */
  readonly passwords: AgentPasswords
  readonly onSignal: (signal: IceSignal) => void
  readonly onConnected: (pair: Pair | null) => void
  readonly onFlow: ConnectorFlowsOptions["onFlow"]
  readonly flowLimits: FlowLimits
  /**
   * Called once if no connection is left or the browser violates the protocol. Not called after
   * `close`.
   */
  readonly onDown: (why: string) => void
}

/**
 * State of a session. `pair` and `rttMs` are those of its first connection that has them, otherwise
 * `null`; `bytesIn` and `bytesOut` are sums over the current connections.
 */
export interface Status {
  readonly pair: Pair | null
  readonly rttMs: number | null
  readonly flows: number
  /** Bytes received by the session's current connections. */
  readonly bytesIn: number
  /** Bytes sent by the session's current connections. */
  readonly bytesOut: number
}

/** One session between this connector and a browser. */
export class BrowserSession {
  readonly id: string
  readonly clientKey: NodeKey
  readonly #options: Options
  readonly #permission: Permission
  readonly #flows: ConnectorFlows
  readonly #links = new Map<number, FlowLink>()
  readonly #offers = new TokenBucket(OFFERS_PER_SECOND, OFFERS_BURST, performance.now())
  readonly #room: Room = { bytes: ROOM_BYTES }
  #control: ControlStream | null = null
  #isClosed = false
  #leaving: string | null = null

  constructor(options: Options) {
    const { clocks, grant, key, ticket } = options
    this.id = ticket.session
    this.clientKey = grant.clientKey
    this.#options = options
    this.#permission = new Permission(grant, { clientKey: grant.clientKey, connectorKey: key }, clocks)
    this.#flows = new ConnectorFlows({
      client: grant.clientKey,
      permit: (target) => this.#permission.permit(target),
      onControl: (stream, early) => {
        const onMessage = (message: SessionMessage) => this.#onMessage(message)
        this.#control = new ControlStream(stream, { onMessage, onBroken: (why) => this.#end(why) }, early)
        if (this.#leaving !== null) this.goAway(this.#leaving)
      },
      onFlow: options.onFlow,
      limits: options.flowLimits
    })
  }

  /** Whether at least one connection is established. */
  get isConnected(): boolean {
    return [...this.#links.values()].some((link) => link.isConnected)
  }

  /** Number of flows that are open or being opened. */
  get flows(): number {
    return this.#flows.flows.size
  }

  get status(): Status {
    const links = [...this.#links.values()]
    const traffic = links.map((link) => link.traffic)
    return {
      pair: links.find(({ pair }) => pair !== null)?.pair ?? null,
      rttMs: traffic.find(({ rttMs }) => rttMs !== null)?.rttMs ?? null,
      flows: this.flows,
      bytesIn: traffic.reduce((sum, { bytesIn }) => sum + bytesIn, 0),
      bytesOut: traffic.reduce((sum, { bytesOut }) => sum + bytesOut, 0)
    }
  }

  /** Handles a signal of the browser. `servers` are used by a connection that an offer begins. */
  onSignal(signal: IceSignal, servers: ReadonlyArray<string | IceServer>): void {
    if (this.#isClosed) return
    const isNew = signal.kind === "offer" && !this.#links.has(signal.attempt)
    if (isNew && this.#links.size < MAX_LINKS && this.#offers.take(1, performance.now())) {
      this.#links.set(signal.attempt, this.#newLink(signal.attempt, servers))
    }
    this.#links.get(signal.attempt)?.onSignal(signal)
  }

  /**
   * Replaces the grant. The new one may come from signaling, the directory or the client. Returns
   * `false` if it is for other parties, or not valid now.
   */
  setGrant(grant: Grant): boolean {
    const taken = this.#permission.replace(grant)
    if (taken === "taken") {
      this.#flows.recheck((target) => typeof this.#permission.permit(target) !== "string")
    }
    return taken !== "foreign"
  }

  /** Cuts all flows if the grant has expired and was not renewed. Returns `false` in that case. */
  expire(): boolean {
    if (this.#permission.standing() === null) return true
    this.#flows.recheck(() => false)
    return false
  }

  /** Asks the browser to open no new flows in this session. Running flows continue. */
  goAway(reason: string): void {
    this.#leaving = reason
    this.#control?.send({ _tag: "Goaway", reason })
  }

  /** Takes back `goAway` for a browser that has not opened its control stream yet. */
  stay(): void {
    this.#leaving = null
  }

  /**
   * Ends the session: notifies the browser of the reason, aborts the flows, and closes the
   * connections.
   */
  close(why: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#control?.send({ _tag: "Goaway", reason: why })
    for (const flow of this.#flows.flows) flow.abort()
    for (const link of this.#links.values()) link.close()
    this.#links.clear()
  }

  #newLink(attempt: number, servers: ReadonlyArray<string | IceServer>): FlowLink {
    const link: FlowLink = new FlowLink({
      attempt,
      servers,
      room: this.#room,
      passwords: this.#options.passwords,
      onSignal: this.#options.onSignal,
      onConnected: () => this.#options.onConnected(link.pair),
      onStream: (stream) => this.#flows.onStream(stream),
      onClosed: (why) => {
        this.#links.delete(attempt)
        if (this.#links.size === 0) this.#end(why)
      }
    })
    return link
  }

  #onMessage(message: SessionMessage): void {
    if (message._tag !== "Grant") return
    const take = (grant: Grant) => this.setGrant(grant)
    this.#control?.send(GrantAnswer.answer(message.signed, { open: this.#options.openGrant, take }))
  }

  #end(why: string): void {
    if (this.#isClosed) return
    this.close(why)
    this.#options.onDown(why)
  }
}
