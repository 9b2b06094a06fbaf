/**
 * Answers STUN at the sockets of a relay: Binding (RFC 8489), and behaviour discovery (RFC 5780) where there are sockets at a
 * second port, or at a second address, too. No answer is longer than its request, and none is given above a prefix's rate.
 */
import { Either } from "effect"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"
import * as Stun from "../../protocol/Stun.ts"
import type { Stats } from "./RelayStats.ts"

interface Output {
  send(bytes: Uint8Array, offset: number, length: number, port: number, address: string): void
}

/** A socket's three neighbours, by what differs; absent where there is none. */
export interface Neighbours {
  readonly port?: number | undefined
  readonly address?: number | undefined
  readonly both?: number | undefined
}

export interface Options {
  readonly mayAnswer: (address: string, now: number) => boolean
  readonly stats: Stats
  /** ms, monotonic. */
  readonly now: () => number
  readonly allowLonger: boolean
}

type From = { readonly address: string; readonly port: number }
type Place = { readonly output: Output; readonly at: SocketAddr | null; readonly neighbours: Neighbours }

/** Sockets are known by the numbers that their owner gives them. */
export class StunServer {
  readonly #options: Options
  readonly #places: Array<Place | undefined> = []

  constructor(options: Options) {
    this.#options = options
  }

  /** `at`: where others see this socket; null: that is not told, and there are no neighbours. */
  setSocket(socket: number, output: Output, at: SocketAddr | null, neighbours: Neighbours = {}): void {
    this.#places[socket] = { output, at, neighbours }
  }

  /** Its neighbours are to be set again without it. */
  dropSocket(socket: number): void {
    this.#places[socket] = undefined
  }

  /** What one read of a socket gave that is for STUN alone: one datagram, or several joined by the kernel. */
  onUdp(bytes: Uint8Array, from: From, socket: number): void {
    const now = this.#options.now()
    for (let at = 0; at < bytes.length;) {
      const length = Stun.lengthAt(bytes, at)
      if (length === 0) return void this.#options.stats.drops.malformed++
      this.onMessage(bytes.subarray(at, at + length), from, socket, now)
      at += length
    }
  }

  /** One whole message. */
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
    // To another port of the address that asks, as a forged source could have it, too; a refusal goes to whom it concerns.
    const refused = changed === undefined || request.unknown.length > 0
    const port = refused ? from.port : request.responsePort ?? from.port
    place.output.send(reply, 0, reply.length, port, from.address)
  }

  /** From where a CHANGE-REQUEST wants its answer; undefined where there is no such socket. */
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
