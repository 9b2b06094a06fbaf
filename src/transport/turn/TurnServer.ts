/**
 * A TURN server (RFC 8656) without sockets of its own. It authenticates requests, lets
 * `TurnAllocations` decide, and passes datagrams on. A plain class on the thread that owns the
 * sockets.
 *
 * A client that is not authenticated gets no more bytes than it sent, unless a TCP connection has
 * proved its address (or `answerShort` is set).
 */
import { Either } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Stun from "../../protocol/nat/Stun.ts"
import * as Turn from "../../protocol/relay/Turn.ts"
import * as TurnAllocations from "../../protocol/relay/TurnAllocations.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import * as Descriptors from "../../services/host/Descriptors.ts"
import * as LimitsMet from "../../services/telemetry/Limits.ts"
import type { TurnAuth } from "./TurnAuth.ts"

/** Random ports to try for one allocation. If so many are taken, the range is practically full. */
const OPEN_TRIES = 32

/** A client of the server, known by its 5-tuple. */
export interface Client extends TurnAllocations.Client {
  readonly port: number
  /** Whether the client uses TCP. Its address is then proved, and its messages are a stream. */
  readonly stream: boolean
  /** Sends a message to the client. May drop it if the client does not keep up. */
  readonly send: (bytes: Uint8Array) => void
}

/** Socket at a relayed address. */
export interface RelaySocket {
  send(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void
  close(): void
}

/** Options of {@link TurnServer}. */
export interface Options {
  readonly auth: TurnAuth
  readonly limits: TurnAllocations.Limits
  /** Host of the relayed addresses, as peers see it. */
  readonly relayedHost: string
  /** Whether the server may relay to this host. */
  readonly mayRelayTo: (host: string) => boolean
  /** Range of relayed ports, both ends included. */
  readonly ports: { readonly from: number; readonly to: number }
  /** Opens a socket at a relayed port. Rejects if the port is taken. */
  readonly open: (
    port: number,
    onMessage: (bytes: Uint8Array, from: { readonly address: string; readonly port: number }) => void
  ) => Promise<RelaySocket>
  /**
   * Whether the rate limit allows an answer to this address. Asked only for clients without an
   * allocation.
   */
  readonly mayAnswer: (address: string, now: number) => boolean
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /**
   * Whether answers over UDP may be longer than the request. A browser's first request has 28
   * bytes, and the shortest challenge has 52.
   */
  readonly answerShort: boolean
}

/** Counters since the start of the server. */
export interface Stats {
  /** Number of allocations that were made, and of those that ended, by time or otherwise. */
  readonly allocations: { made: number; ended: number }
  /** Refused requests by error code. */
  readonly refused: Record<string, number>
  /** Datagrams that clients sent to peers. */
  readonly toPeers: { packets: number; bytes: number }
  /** Datagrams that peers sent to clients. */
  readonly toClients: { packets: number; bytes: number }
  /** Dropped messages and datagrams, by cause. */
  readonly drops: { malformed: number; overRate: number; tooShort: number; notPermitted: number; unbound: number }
}

/** A TURN server for the clients of several sockets. */
export class TurnServer {
  readonly stats: Stats = {
    allocations: { made: 0, ended: 0 },
    refused: {},
    toPeers: { packets: 0, bytes: 0 },
    toClients: { packets: 0, bytes: 0 },
    drops: { malformed: 0, overRate: 0, tooShort: 0, notPermitted: 0, unbound: 0 }
  }
  readonly #options: Options
  readonly #table: TurnAllocations.TurnAllocations
  readonly #sockets = new Map<TurnAllocations.Allocation, { readonly client: Client; readonly socket: RelaySocket }>()
  readonly #opening = new Set<number>()
  #stopped = false

  constructor(options: Options) {
    this.#options = options
    this.#table = new TurnAllocations.TurnAllocations(options)
  }

  /** Number of allocations. */
  get allocations(): number {
    return this.#table.count
  }

  /** Whether the client has an allocation. */
  has(client: TurnAllocations.Client): boolean {
    return this.#table.at(client.tuple) !== undefined
  }

  /** Handles one datagram, or one message of a stream. */
  onMessage(bytes: Uint8Array, client: Client): void {
    const now = this.#options.now()
    if (bytes.length > 0 && bytes[0]! > 3) return this.#onChannelData(bytes, client, now)
    const allocated = this.has(client)
    if (!allocated && !this.#options.mayAnswer(client.host, now)) return void this.stats.drops.overRate++
    const decoded = Turn.decode(bytes)
    if (Either.isLeft(decoded)) return void this.stats.drops.malformed++
    const message = decoded.right
    if (message.class === Turn.Class.indication) return this.#onIndication(message, client, now)
    if (message.class !== Turn.Class.request) return void this.stats.drops.malformed++
    if (message.method === Turn.Method.binding) return this.#onBinding(bytes, client)
    this.#onRequest(bytes, message, client, now)
  }

  /** Ends the client's allocation, because its connection has ended. */
  onGone(client: TurnAllocations.Client): void {
    const allocation = this.#table.at(client.tuple)
    if (allocation !== undefined) this.#end(allocation)
  }

  /** Ends the node's allocations and refuses its credentials issued up to `at` (epoch seconds). */
  revoke(name: string, at: number): void {
    this.#options.auth.revoke(name, at)
    for (const allocation of this.#table.endUser(name)) this.#release(allocation)
  }

  /** Ends what has expired. Must be called about once a second. */
  tick(): void {
    this.#options.auth.tick()
    for (const allocation of this.#table.tick(this.#options.now())) this.#release(allocation)
  }

  /** Ends all allocations. Allocations that are being opened are refused. */
  stop(): void {
    this.#stopped = true
    for (const allocation of this.#sockets.keys()) this.#end(allocation)
  }

  // -------------------------------------------------------------------------------------- requests

  #onBinding(bytes: Uint8Array, client: Client): void {
    const decoded = Stun.decode(bytes)
    if (Either.isLeft(decoded) || decoded.right._tag !== "Request") return void this.stats.drops.malformed++
    const allowLonger = client.stream || this.#options.answerShort
    const mapped = { host: client.host, port: client.port }
    const reply = Stun.answer(decoded.right, bytes.length, mapped, { allowLonger })
    if (reply === null) this.stats.drops.tooShort++
    else client.send(reply)
  }

  #onRequest(bytes: Uint8Array, message: Turn.Message, client: Client, now: number): void {
    const checked = this.#options.auth.check(bytes, message, client, now)
    if (checked._tag === "Refused") return this.#challenge(checked.code, bytes.length, message, client, now)
    const { asker, signer } = checked
    const answer = (outcome: TurnAllocations.Refused | (Turn.Fields & { readonly _tag?: undefined })) => {
      const isError = outcome._tag === "Refused"
      if (isError) this.#count(outcome.code)
      const fields = isError ? { error: outcome.code } : outcome
      const cls = isError ? Turn.Class.error : Turn.Class.success
      const { fingerprint } = message
      client.send(Turn.encode(message.method, cls, message.txId, fields, { signer, fingerprint }))
    }
    if (message.unknown.length > 0) {
      this.#count(420)
      const fields = { error: 420, unknown: message.unknown }
      return client.send(Turn.encode(message.method, Turn.Class.error, message.txId, fields, { signer }))
    }
    switch (message.method) {
      case Turn.Method.allocate:
        return this.#onAllocate(asker, message, client, now, answer)
      case Turn.Method.refresh: {
        const refreshed = this.#table.onRefresh(asker, message, now)
        if (refreshed._tag === "Ended") this.#release(refreshed.allocation)
        const lifetime = refreshed._tag === "Refreshed" ? refreshed.lifetime : 0
        return answer(refreshed._tag === "Refused" ? refreshed : { lifetime })
      }
      case Turn.Method.createPermission: {
        const granted = this.#table.onCreatePermission(asker, message, now)
        return answer(granted._tag === "Refused" ? granted : {})
      }
      case Turn.Method.channelBind: {
        const granted = this.#table.onChannelBind(asker, message, now)
        return answer(granted._tag === "Refused" ? granted : {})
      }
      default:
        return answer({ _tag: "Refused", code: 400 })
    }
  }

  #onAllocate(
    asker: TurnAllocations.Asker,
    message: Turn.Message,
    client: Client,
    now: number,
    answer: (outcome: TurnAllocations.Refused | Turn.Fields & { readonly _tag?: undefined }) => void
  ): void {
    const outcome = this.#table.onAllocate(asker, message, now)
    if (outcome._tag === "Wait") return
    if (outcome._tag === "Refused") return answer(outcome)
    const { allocation } = outcome
    const succeed = (relayed: SocketAddr) =>
      answer({ relayed, mapped: { host: client.host, port: client.port }, lifetime: allocation.lifetime })
    if (outcome._tag === "Again") return allocation.relayed === null ? undefined : succeed(allocation.relayed)
    const settle = async () => {
      const opened = await this.#open(allocation, client, outcome.even)
      if (this.#table.at(client.tuple) !== allocation) return
      if (opened && allocation.relayed !== null) return succeed(allocation.relayed)
      this.#table.end(allocation)
      answer({ _tag: "Refused", code: 508 })
    }
    void settle()
  }

  /** Opens a socket at a random free port, so that nobody can predict the next one. */
  async #open(allocation: TurnAllocations.Allocation, client: Client, even: boolean): Promise<boolean> {
    const { open, ports } = this.#options
    if (!Descriptors.hasRoom()) {
      LimitsMet.met("descriptors")
      return false
    }
    for (let tries = 0; tries < OPEN_TRIES; tries++) {
      const port = randomPort(ports, even)
      if (port === null || this.#table.hasPort(port) || this.#opening.has(port)) continue
      this.#opening.add(port)
      try {
        const socket = await open(port, (bytes, from) => {
          this.#toClient(allocation, from.address, from.port, bytes, this.#options.now())
        })
        if (this.#stopped || !this.#table.onOpened(allocation, port)) {
          socket.close()
          return false
        }
        this.#sockets.set(allocation, { client, socket })
        this.stats.allocations.made++
        return true
      } catch {
        // another program has taken it: try the next one
      } finally {
        this.#opening.delete(port)
      }
    }
    return false
  }

  /**
   * Answers a client that is not authenticated. The answer is never longer than the request if the
   * address may be forged, unless `answerShort` is set.
   */
  #challenge(code: 400 | 401 | 438, received: number, message: Turn.Message, client: Client, now: number): void {
    this.#count(code)
    const { auth } = this.#options
    const build = (fields: Turn.Fields) =>
      Turn.encode(message.method, Turn.Class.error, message.txId, { error: code, ...fields })
    if (code === 400) return this.#answerShort(build({}), received, client)
    const full = build(auth.challenge(client, now, true))
    const reply = client.stream || full.length <= received ? full : build(auth.challenge(client, now, false))
    this.#answerShort(reply, received, client)
  }

  #answerShort(reply: Uint8Array, received: number, client: Client): void {
    if (reply.length > received && !client.stream && !this.#options.answerShort) this.stats.drops.tooShort++
    else client.send(reply)
  }

  #count(code: number): void {
    this.stats.refused[code] = (this.stats.refused[code] ?? 0) + 1
  }

  // ------------------------------------------------------------------------------------------ data

  #onChannelData(bytes: Uint8Array, client: Client, now: number): void {
    const allocation = this.#table.at(client.tuple)
    const message = allocation === undefined ? null : Turn.decodeChannelData(bytes)
    if (allocation === undefined || message === null) return void this.stats.drops.unbound++
    const peer = this.#table.peerOf(allocation, message.channel, now)
    if (peer === null) return void this.stats.drops.unbound++
    this.#toPeer(allocation, peer, message.data, now)
  }

  /**
   * Handles an indication. It is not authenticated (RFC 8656, section 11.2); the permissions of the
   * 5-tuple decide. Peers are decoded from the wire, so their notation is canonical.
   */
  #onIndication(message: Turn.Message, client: Client, now: number): void {
    const allocation = this.#table.at(client.tuple)
    const { data, method, peers: [peer], unknown } = message
    if (allocation === undefined || method !== Turn.Method.send) return void this.stats.drops.unbound++
    if (data === null || peer === undefined || peer.port === 0 || unknown.length > 0) {
      return void this.stats.drops.malformed++
    }
    this.#toPeer(allocation, peer, data, now)
  }

  #toPeer(allocation: TurnAllocations.Allocation, peer: SocketAddr, data: Uint8Array, now: number): void {
    const { relayed } = allocation
    const { relayedHost, mayRelayTo } = this.#options
    if (relayed === null || !this.#table.maySend(allocation, peer.host, data.length, now)) {
      return void this.stats.drops.notPermitted++
    }
    this.stats.toPeers.packets++
    this.stats.toPeers.bytes += data.length
    // Data between two of our allocations needs no socket. Other sockets of this host are peers
    // only if `mayRelayTo` permits it.
    const other = this.#table.atRelayed(peer)
    if (other !== undefined) return this.#toClient(other, relayed.host, relayed.port, data, now)
    if (peer.host === relayedHost && !mayRelayTo(peer.host)) return void this.stats.drops.notPermitted++
    this.#sockets.get(allocation)?.socket.send(data, 0, data.length, peer.port, peer.host)
  }

  #toClient(
    allocation: TurnAllocations.Allocation,
    host: string,
    port: number,
    data: Uint8Array,
    now: number
  ): void {
    const client = this.#sockets.get(allocation)?.client
    const channel = this.#table.onPeer(allocation, host, port, data.length, now)
    if (client === undefined || channel === null) return void this.stats.drops.notPermitted++
    this.stats.toClients.packets++
    this.stats.toClients.bytes += data.length
    if (channel !== 0) return client.send(Turn.encodeChannelData(channel, data, client.stream))
    const txId = Crypto.randomBytes(Stun.TX_ID_BYTES)
    client.send(Turn.encode(Turn.Method.data, Turn.Class.indication, txId, { peers: [{ host, port }], data }))
  }

  #end(allocation: TurnAllocations.Allocation): void {
    this.#table.end(allocation)
    this.#release(allocation)
  }

  /** Closes the socket of an allocation that has ended in the table. */
  #release(allocation: TurnAllocations.Allocation): void {
    const held = this.#sockets.get(allocation)
    if (held === undefined) return
    this.#sockets.delete(allocation)
    this.stats.allocations.ended++
    held.socket.close()
  }
}

const randomPort = ({ from, to }: { readonly from: number; readonly to: number }, even: boolean): number | null => {
  const port = from + Math.floor(new DataView(Crypto.randomBytes(4).buffer).getUint32(0) / 2 ** 32 * (to - from + 1))
  if (!even || port % 2 === 0) return port
  return port + 1 <= to ? port + 1 : port - 1 >= from ? port - 1 : null
}
