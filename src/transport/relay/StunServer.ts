/**
 * Answers STUN requests at the sockets of a relay: Binding (RFC 8489), and behaviour discovery (RFC
 * 5780) where sockets exist at a second port or address. No answer is longer than its request
 * (unless `allowLonger` is set), and each prefix has a rate limit.
 */
import { Either } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Stun from "../../protocol/nat/Stun.ts"
import type { Stats } from "./RelayStats.ts"

interface Output {
  send(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void
}

/**
 * Numbers of the sockets at a socket's alternate addresses, by what differs: IP address, port or
 * both. `undefined` where there is none.
 */
export interface Neighbours {
  readonly port?: number | undefined
  readonly address?: number | undefined
  readonly both?: number | undefined
}

/** Options of the STUN server. `stats` are the relay's counters. */
export interface Options {
  /** Whether the rate limit allows an answer to this address. */
  readonly mayAnswer: (address: string, now: number) => boolean
  readonly stats: Stats
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  /** Whether an answer may be longer than its request. */
  readonly allowLonger: boolean
}

type From = { readonly address: string; readonly port: number }
type Place = { readonly output: Output; readonly at: SocketAddr | null; readonly neighbours: Neighbours }

/** Answers STUN requests. Sockets are identified by the numbers that their owner assigns. */
export class StunServer {
  readonly #options: Options
  readonly #places: Array<Place | undefined> = []

  constructor(options: Options) {
    this.#options = options
  }

  /**
   * Adds or replaces a socket. `at` is its address as others see it. `null` if that is not known;
   * the socket then has no neighbours.
   */
  setSocket(socket: number, output: Output, at: SocketAddr | null, neighbours: Neighbours = {}): void {
    this.#places[socket] = { output, at, neighbours }
  }

  /** Removes a socket. The owner must set its neighbours again without it. */
  dropSocket(socket: number): void {
    this.#places[socket] = undefined
  }

  /**
   * Handles one read of a socket that serves only STUN: one datagram, or several joined by the
   * kernel.
   */
  onUdp(bytes: Uint8Array, from: From, socket: number): void {
    const now = this.#options.now()
    for (let at = 0; at < bytes.length;) {
      const length = Stun.lengthAt(bytes, at)
      if (length === 0) return void this.#options.stats.drops.malformed++
      this.onMessage(bytes.subarray(at, at + length), from, socket, now)
      at += length
    }
  }

  /** Answers one whole message. */
  onMessage(bytes: Uint8Array, from: From, socket: number, now: number): void {
    const { allowLonger, mayAnswer, stats } = this.#options
    if (!mayAnswer(from.address, now)) return void stats.drops.overRate++
    const decoded = Stun.decode(bytes)
    if (Either.isLeft(decoded) || decoded.right._tag !== "Request") return void stats.drops.malformed++
    const request = decoded.right
    const asked = this.#places[socket]
    const changed = this.#neighbour(asked, request.change)
    const place = changed ?? asked
    if (asked === undefined || place === undefined) return
    const other = this.#at(asked.neighbours.both)
    const reply = Stun.answer(request, bytes.length, { host: from.address, port: from.port }, {
      ...(place.at === null ? {} : { origin: place.at }),
      other,
      alternatePort: other === undefined ? this.#at(asked.neighbours.port)?.port : undefined,
      supportsChange: changed !== undefined,
      allowLonger
    })
    if (reply === null) return void stats.drops.tooShort++
    stats.answered.stun++
    // A RESPONSE-PORT sends the answer to another port of the requesting address. A forged source
    // address could cause the same. A refusal goes to the port of the request.
    const refused = changed === undefined || request.unknown.length > 0
    const port = refused ? from.port : request.responsePort ?? from.port
    place.output.send(reply, 0, reply.length, port, from.address)
  }

  /** The socket from which a CHANGE-REQUEST wants its answer. `undefined` if there is none. */
  #neighbour(place: Place | undefined, change: Stun.Change | null): Place | undefined {
    if (place === undefined || change === null || (!change.address && !change.port)) return place
    const { address, both, port } = place.neighbours
    const socket = change.address ? (change.port ? both : address) : port
    return socket === undefined ? undefined : this.#places[socket]
  }

  #at(socket: number | undefined): SocketAddr | undefined {
    return socket === undefined ? undefined : this.#places[socket]?.at ?? undefined
  }
}
