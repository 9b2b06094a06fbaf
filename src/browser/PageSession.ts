/**
 * A session with one connector. It holds the grant that says what may flow, and renews it while the
 * page uses the session; the WebRTC connections that carry the flows; and the control stream, which
 * is opened first. `FlowSession` is its counterpart over QUIC.
 */
import * as HostName from "../protocol/bytes/HostName.ts"
import type { IceSignal } from "../protocol/candidate/IceSignal.ts"
import type { Target } from "../protocol/flow/FlowWire.ts"
import type { Grant, Ticket } from "../protocol/trust/Documents.ts"
import * as Signed from "../protocol/trust/Signed.ts"
import type { Room } from "../session/ChannelStream.ts"
import { ControlStream } from "../session/ControlStream.ts"
import { FlowCount } from "../session/core/FlowCount.ts"
import { Renewals, type Renewed } from "../session/core/Renewals.ts"
import type * as FlowStart from "../session/FlowStart.ts"
import { type Clocks, Permission } from "../session/Permission.ts"
import { type LinkStats, PeerLink } from "./PeerLink.ts"
import { Signals } from "./Signals.ts"

/** Longest time from the dial to an open connection. ICE itself gives up after about this long. */
const CONNECT_MS = 20_000
/** Bytes that the flows of a session share for receive windows, beyond the first window of each. */
const ROOM_BYTES = 32 * 1024 * 1024
/** Most WebRTC connections of a session, of 480 streams each. The connector accepts no more. */
const MAX_LINKS = 4

/** Documents of a session, as the relay issued them when it was dialled. */
export interface Documents {
  readonly grant: Grant
  readonly ticket: Ticket
}

/** Options of {@link Session.open}. */
export interface Options extends Documents {
  /** The connector's name as the administrator wrote it. */
  readonly connectorName: string
  /** ICE servers for a new connection. TURN credentials expire, so it is asked each time. */
  readonly iceServers: () => ReadonlyArray<RTCIceServer>
  readonly sign: (message: Uint8Array) => Promise<Uint8Array>
  readonly forward: (box: Uint8Array) => void
  readonly clocks: Clocks
  /**
   * Fetches a new grant. Rejects if the permission has ended, or if the relay cannot be reached
   * now.
   */
  readonly renew: () => Promise<Renewed>
  /** Called once, when the session has ended. */
  readonly onDown: () => void
}

/** A session with one connector. */
export class Session {
  readonly id: string
  readonly connector: string
  readonly #options: Options
  readonly #permission: Permission
  readonly #links = new Map<number, PeerLink>()
  readonly #room: Room = { bytes: ROOM_BYTES }
  readonly #flows = new FlowCount(() => performance.now())
  readonly #renewals: Renewals
  #signals: Signals | null = null
  #control: ControlStream | null = null
  #attempts = 0
  #isLeaving = false
  #why: string | null = null
  #onConnected: () => void = () => undefined
  #onFailed: (why: Error) => void = () => undefined

  private constructor(options: Options) {
    const { clocks, grant, ticket } = options
    this.id = ticket.session
    this.connector = HostName.shown(grant.connectorName, options.connectorName)
    this.#options = options
    const parties = { clientKey: ticket.clientKey, connectorKey: ticket.connectorKey }
    this.#permission = new Permission(grant, parties, clocks)
    this.#renewals = new Renewals({
      flows: this.#flows,
      leftSeconds: () => this.#permission.leftSeconds,
      renew: options.renew,
      onRenewed: (renewed) => this.setGrant(renewed),
      end: (why) => this.close(why)
    })
  }

  /**
   * Opens a session. Rejects with the reason if it cannot connect. `use` is called first, so that
   * sealed messages from the relay reach the session from the start.
   */
  static async open(options: Options, use: (session: Session) => void): Promise<Session> {
    const session = new Session(options)
    use(session)
    const connected = new Promise<void>((resolve, reject) => {
      session.#onConnected = resolve
      session.#onFailed = reject
    })
    const late = setTimeout(
      () => session.close("no WebRTC connection in time; this network may let no UDP out"),
      CONNECT_MS
    )
    try {
      await Promise.all([connected, session.#begin()])
      return session
    } catch (error) {
      session.close(error instanceof Error ? error.message : String(error))
      throw error
    } finally {
      clearTimeout(late)
    }
  }

  /**
   * Whether new flows may be opened. A session that has fallen silent keeps its running flows until
   * it ends.
   */
  get isConnected(): boolean {
    return this.#why === null && this.#links.get(1)?.isConnected === true
  }

  /** Number of flows that are open or being opened. */
  get flows(): number {
    return this.#flows.flows
  }

  /** Whether the session accepts new flows and its grant permits this target. */
  permits(target: Target): boolean {
    return this.#why === null && !this.#isLeaving && typeof this.#permission.permit(target) !== "string"
  }

  /** Handles a sealed message of the connector that the relay forwarded. */
  onBox(box: Uint8Array): void {
    this.#signals?.onBox(box)
  }

  /**
   * Takes a newer grant, from the relay or from a renewal, and forwards it to the connector. The
   * connector may have received it from the relay already.
   */
  setGrant({ grant, signed }: Renewed): void {
    if (this.#permission.replace(grant) === "taken") {
      this.#control?.send({ _tag: "Grant", signed: Signed.toBytes(signed) })
    }
  }

  /**
   * Opens a flow. `done` is called once, unless the caller cancels by the returned function first.
   * When an accepted flow has ended, the caller must call `flowEnded`.
   */
  openFlow(target: Target, done: (answer: FlowStart.Answer) => void): () => void {
    return this.#flows.open({ openStream: () => this.#openStream() }, { ...target, traceparent: null }, done)
  }

  /** Notes that an accepted flow has ended. */
  flowEnded(): void {
    this.#flows.ended()
  }

  /**
   * Returns the traffic of all connections of the session, and the candidates and round trip of the
   * first one.
   */
  async stats(): Promise<LinkStats> {
    const all = await Promise.all([...this.#links.values()].map((link) => link.stats()))
    const { local = null, remote = null, rttMs = null } = all[0] ?? {}
    return {
      local,
      remote,
      rttMs,
      bytesIn: all.reduce((sum, { bytesIn }) => sum + bytesIn, 0),
      bytesOut: all.reduce((sum, { bytesOut }) => sum + bytesOut, 0)
    }
  }

  /**
   * Ends the session, its connections and their flows. If the session is still being opened, that
   * fails with `why`.
   */
  close(why: string): void {
    if (this.#why !== null) return
    this.#why = why
    this.#renewals.stop()
    for (const attempt of this.#links.keys()) this.#signals?.send({ kind: "end", attempt })
    for (const link of this.#links.values()) link.close()
    this.#links.clear()
    this.#onFailed(new Error(why))
    this.#options.onDown()
  }

  async #begin(): Promise<void> {
    const { forward, sign, ticket } = this.#options
    this.#signals = await Signals.begin({
      parties: { session: ticket.session, clientKey: ticket.clientKey, connectorKey: ticket.connectorKey },
      sign,
      forward,
      onSignal: (signal) => this.#links.get(signal.attempt)?.onSignal(signal)
    })
    const stream = this.#newLink().openStream()
    if (stream === null) throw new Error("this browser opens no data channels")
    this.#control = ControlStream.open(stream, {
      onMessage: (message) => {
        if (message._tag === "Goaway") this.#isLeaving = true
        else if (message._tag === "GrantRefused") this.close(`the connector refused the grant: ${message.reason}`)
      },
      onBroken: (why) => this.close(why)
    })
  }

  #newLink(): PeerLink {
    const attempt = ++this.#attempts
    const link: PeerLink = new PeerLink({
      attempt,
      iceServers: this.#options.iceServers(),
      room: this.#room,
      onSignal: (signal: IceSignal) => this.#signals?.send(signal),
      onConnected: () => this.#onConnected(),
      onClosed: (why) => {
        this.#links.delete(attempt)
        // The first connection carries the control stream.
        if (this.#links.size === 0 || attempt === 1) this.close(why)
      }
    })
    this.#links.set(attempt, link)
    this.#offer(link).catch(() => undefined) // the link was closed in the meantime
    return link
  }

  async #offer(link: PeerLink): Promise<void> {
    await this.#signals?.agreed
    await link.offer()
  }

  #openStream() {
    if (this.#why !== null) return null
    const link = [...this.#links.values()].find(({ hasRoom }) => hasRoom) ??
      (this.#links.size < MAX_LINKS ? this.#newLink() : undefined)
    return link?.openStream() ?? null
  }
}
