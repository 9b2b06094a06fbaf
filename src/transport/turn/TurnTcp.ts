/**
 * TURN over TCP (RFC 8656, section 2.1). Splits each connection's bytes into messages for the
 * server, and limits the number of connections.
 */
import { Buffer } from "node:buffer"
import { type AddressInfo, createServer, type Server, type Socket } from "node:net"
import * as Turn from "../../protocol/relay/Turn.ts"
import * as TurnPeers from "../../protocol/relay/TurnPeers.ts"
import * as Descriptors from "../../services/host/Descriptors.ts"
import * as LimitsMet from "../../services/telemetry/Limits.ts"
import type { Client, TurnServer } from "./TurnServer.ts"

/** How long a connection may stay open without an allocation. */
export const IDLE_MS = 30_000
/** Bytes that may wait for a client that does not keep up. Further messages are dropped. */
const QUEUE_BYTES = 256 * 1024

/** Limits of the TCP listener. */
export interface Limits {
  /** Most connections in total. */
  readonly connections: number
  /** Most connections of one address (IPv4) or /64 (IPv6). */
  readonly perAddress: number
}

interface Connection {
  readonly socket: Socket
  readonly client: Client
  readonly prefix: string
  since: number
  rest: Buffer | null
}

/** TCP listener of a TURN server. */
export class TurnTcp {
  readonly #server: TurnServer
  readonly #limits: Limits
  readonly #now: () => number
  readonly #listener: Server
  readonly #connections = new Set<Connection>()
  readonly #perAddress = new Map<string, number>()
  #made = 0

  constructor(options: { readonly server: TurnServer; readonly limits: Limits; readonly now: () => number }) {
    this.#server = options.server
    this.#limits = options.limits
    this.#now = options.now
    this.#listener = createServer({ noDelay: true }, (socket) => this.#onConnection(socket))
  }

  get connections(): number {
    return this.#connections.size
  }

  /** Starts listening and returns the port. */
  listen(host: string, port: number, onError: (cause: Error) => void): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#listener.once("error", reject)
      this.#listener.listen({ host, port, exclusive: true }, () => {
        this.#listener.off("error", reject)
        this.#listener.on("error", onError)
        resolve((this.#listener.address() as AddressInfo).port)
      })
    })
  }

  /** Closes idle connections. Must be called about once a second. */
  tick(): void {
    const now = this.#now()
    for (const connection of this.#connections) {
      if (this.#server.has(connection.client)) connection.since = now
      else if (now - connection.since >= IDLE_MS) connection.socket.destroy()
    }
  }

  close(): void {
    this.#listener.close()
    for (const { socket } of this.#connections) socket.destroy()
  }

  #onConnection(socket: Socket): void {
    const { remoteAddress, remotePort } = socket
    const host = remoteAddress === undefined ? null : TurnPeers.canonical(remoteAddress)
    if (host === null || remotePort === undefined) return void socket.destroy()
    const prefix = TurnPeers.prefix(host)
    const held = this.#perAddress.get(prefix) ?? 0
    const isFull = this.#connections.size >= this.#limits.connections
    const isShort = !Descriptors.hasRoom()
    if (isFull) LimitsMet.met("turn")
    if (isShort) LimitsMet.met("descriptors")
    if (held >= this.#limits.perAddress || isFull || isShort) return void socket.destroy()
    this.#perAddress.set(prefix, held + 1)
    const client: Client = {
      tuple: `tcp ${++this.#made}`, // a later connection from the same port is a different client
      host,
      port: remotePort,
      stream: true,
      send: (bytes) => {
        if (!socket.destroyed && socket.writableLength <= QUEUE_BYTES) socket.write(bytes)
      }
    }
    const connection: Connection = { socket, client, prefix, since: this.#now(), rest: null }
    this.#connections.add(connection)
    socket.on("data", (chunk: Buffer) => this.#onData(connection, chunk))
    socket.on("error", () => socket.destroy())
    socket.once("close", () => this.#onClose(connection))
  }

  /**
   * Passes whole messages to the server and keeps the rest, which is less than one message: 64 KiB.
   */
  #onData(connection: Connection, chunk: Buffer): void {
    const bytes = connection.rest === null ? chunk : Buffer.concat([connection.rest, chunk])
    let at = 0
    while (at < bytes.length) {
      const length = Turn.streamLength(bytes.subarray(at, at + Turn.CHANNEL_HEAD_BYTES))
      if (length < 0) return void connection.socket.destroy()
      if (length === 0 || at + length > bytes.length) break
      this.#server.onMessage(bytes.subarray(at, at + length), connection.client)
      at += length
    }
    connection.rest = at === bytes.length ? null : Buffer.from(bytes.subarray(at))
  }

  #onClose(connection: Connection): void {
    const { client, prefix } = connection
    this.#connections.delete(connection)
    const left = (this.#perAddress.get(prefix) ?? 1) - 1
    if (left === 0) this.#perAddress.delete(prefix)
    else this.#perAddress.set(prefix, left)
    this.#server.onGone(client)
  }
}
