/**
 * Allocations of a TURN server (RFC 8656, sections 6 to 13): which client has which relayed
 * address, with which peers it may exchange datagrams, and on which channels. Requests must be
 * authenticated before they come here. There is no clock and no socket: `now` is in ms, monotonic.
 * Every table is bounded by `Limits`.
 */
import { familyOf, type SocketAddr } from "../bytes/SocketAddr.ts"
import { TokenBucket } from "../bytes/TokenBucket.ts"
import * as Stun from "../nat/Stun.ts"
import * as Turn from "./Turn.ts"
import * as TurnPeers from "./TurnPeers.ts"

/** Lifetime of an allocation whose client asks for none, in seconds (RFC 8656, section 3.2). */
export const DEFAULT_LIFETIME = 600
/** Longest lifetime of an allocation, in seconds. */
export const MAX_LIFETIME = 3600
/** Lifetime of a permission (RFC 8656, section 9). */
export const PERMISSION_MS = 300_000
/** Lifetime of a channel (RFC 8656, section 12). */
export const CHANNEL_MS = 600_000
/**
 * How long after its end a channel's number cannot be bound again. Otherwise ChannelData that
 * arrives late could reach another peer (RFC 8656, section 12).
 */
export const CHANNEL_REST_MS = 300_000

/** Limits of a server. */
export interface Limits {
  /** Most allocations of the server. */
  readonly total: number
  /** Most allocations of one user. */
  readonly perUser: number
  /** Most allocations for one IPv4 address or one IPv6 /64. An office may be behind it. */
  readonly perAddress: number
  /** Most permissions of one allocation. */
  readonly permissions: number
  /** Most channels of one allocation. */
  readonly channels: number
  /** Most bytes per second of all allocations of one user, both directions together. */
  readonly bytesPerSecond: number
}

/** Limits of a server whose configuration names none. */
export const DEFAULT_LIMITS: Limits = {
  total: 1000,
  perUser: 16,
  perAddress: 128,
  permissions: 64,
  channels: 64,
  bytesPerSecond: 12_500_000
}

/** A client of the server. */
export interface Client {
  /** The 5-tuple, in any form that the sockets' owner uses. */
  readonly tuple: string
  readonly host: string
}

interface User {
  count: number
  readonly bucket: TokenBucket
}

interface Channel {
  readonly peer: SocketAddr
  readonly peerKey: string
  until: number
}

/** A relayed address and what belongs to it. */
export interface Allocation {
  readonly client: Client
  /** The whole user name. A request with another one may not touch this allocation. */
  readonly username: string
  readonly userId: string
  readonly addressId: string
  /** Counters of the user to whose quotas the allocation counts. */
  readonly user: User
  readonly txId: string
  /** Lifetime that was granted, in seconds. */
  readonly lifetime: number
  /** Relayed address. `null` while its socket is being opened. */
  relayed: SocketAddr | null
  /** When the allocation ends, in ms (monotonic). */
  expiresAt: number
  readonly permissions: Map<string, number>
  readonly channels: Map<number, Channel>
  readonly channelOf: Map<string, number>
}

/** A refusal with its STUN error code. */
export interface Refused {
  readonly _tag: "Refused"
  readonly code: number
}
/** Result of an Allocate request. `Wait`: the socket is still being opened, so send no answer. */
export type Allocating =
  | Refused
  /** The caller opens a socket, and then calls `onOpened`, or `end` if that failed. */
  | { readonly _tag: "Open"; readonly allocation: Allocation; readonly even: boolean }
  /** The request is a repetition, because the answer was lost: send the answer again. */
  | { readonly _tag: "Again"; readonly allocation: Allocation }
  | { readonly _tag: "Wait" }
/** Result of a Refresh request. `lifetime` is in seconds. */
export type Refreshing =
  | Refused
  | { readonly _tag: "Refreshed"; readonly lifetime: number }
  | { readonly _tag: "Ended"; readonly allocation: Allocation }
/** Result of a CreatePermission or ChannelBind request. */
export type Granting = Refused | { readonly _tag: "Granted" }

/**
 * Sender of a request. `userId` identifies the user for the quotas: the user name without its time.
 */
export interface Asker {
  readonly client: Client
  readonly username: string
  readonly userId: string
}

/** Options of {@link TurnAllocations}. */
export interface Options {
  readonly limits: Limits
  /**
   * Host of the relayed addresses. Peers at it are other allocations of this server, and are always
   * permitted.
   */
  readonly relayedHost: string
  readonly mayRelayTo: (host: string) => boolean
}

const refused = (code: number): Refused => ({ _tag: "Refused", code })
const GRANTED: Granting = { _tag: "Granted" }

/** All allocations of a server. */
export class TurnAllocations {
  readonly #options: Options
  readonly #limits: Limits
  readonly #family: 4 | 6
  readonly #byTuple = new Map<string, Allocation>()
  readonly #byPort = new Map<number, Allocation>()
  readonly #users = new Map<string, User>()
  readonly #addresses = new Map<string, number>()

  constructor(options: Options) {
    this.#options = { ...options, relayedHost: TurnPeers.canonical(options.relayedHost) ?? options.relayedHost }
    this.#limits = options.limits
    this.#family = canonicalFamily(options.relayedHost)
  }

  /** Number of allocations. */
  get count(): number {
    return this.#byTuple.size
  }

  /** Number of permissions of all allocations. */
  get permissionCount(): number {
    let count = 0
    for (const { permissions } of this.#byTuple.values()) count += permissions.size
    return count
  }

  /** Returns the allocation of a 5-tuple, also while its socket is being opened. */
  at(tuple: string): Allocation | undefined {
    return this.#byTuple.get(tuple)
  }

  /** Returns the allocation at one of the server's own relayed addresses. */
  atRelayed(peer: SocketAddr): Allocation | undefined {
    return peer.host === this.#options.relayedHost ? this.#byPort.get(peer.port) : undefined
  }

  /** Whether an allocation has this relayed port. */
  hasPort(port: number): boolean {
    return this.#byPort.has(port)
  }

  /** Handles an Allocate request. */
  onAllocate(asker: Asker, message: Turn.Message, now: number): Allocating {
    const { client, userId, username } = asker
    const txId = Stun.toHex(message.txId)
    const known = this.#byTuple.get(client.tuple)
    if (known !== undefined) {
      if (known.txId !== txId || known.username !== username) return refused(437)
      return known.relayed === null ? { _tag: "Wait" } : { _tag: "Again", allocation: known }
    }
    const invalid = this.#checkAllocate(message)
    if (invalid !== 0) return refused(invalid)
    const { bytesPerSecond, perAddress, perUser, total } = this.#limits
    const addressId = TurnPeers.prefix(client.host)
    if (this.#byTuple.size >= total) return refused(508)
    if ((this.#users.get(userId)?.count ?? 0) >= perUser) return refused(486)
    if ((this.#addresses.get(addressId) ?? 0) >= perAddress) return refused(486)
    const user = this.#users.get(userId) ?? { count: 0, bucket: new TokenBucket(bytesPerSecond, bytesPerSecond, now) }
    user.count++
    this.#users.set(userId, user)
    this.#addresses.set(addressId, (this.#addresses.get(addressId) ?? 0) + 1)
    const lifetime = lifetimeFor(message.lifetime)
    const allocation: Allocation = {
      client,
      username,
      userId,
      addressId,
      user,
      txId,
      lifetime,
      relayed: null,
      expiresAt: now + lifetime * 1000,
      permissions: new Map(),
      channels: new Map(),
      channelOf: new Map()
    }
    this.#byTuple.set(client.tuple, allocation)
    return { _tag: "Open", allocation, even: message.evenPort !== null }
  }

  /**
   * Notes that the socket is open. Returns `false` if the allocation has ended meanwhile; then
   * close the socket.
   */
  onOpened(allocation: Allocation, port: number): boolean {
    if (this.#byTuple.get(allocation.client.tuple) !== allocation) return false
    allocation.relayed = { host: this.#options.relayedHost, port }
    this.#byPort.set(port, allocation)
    return true
  }

  /** Handles a Refresh request. A lifetime of 0 ends the allocation. */
  onRefresh(asker: Asker, message: Turn.Message, now: number): Refreshing {
    const found = this.#own(asker)
    if ("_tag" in found) return found
    if (message.family !== null && message.family !== this.#family) return refused(443)
    if (message.lifetime === 0) {
      this.end(found)
      return { _tag: "Ended", allocation: found }
    }
    const lifetime = lifetimeFor(message.lifetime)
    found.expiresAt = now + lifetime * 1000
    return { _tag: "Refreshed", lifetime }
  }

  /** Handles a CreatePermission request. It permits all of the peers, or none. */
  onCreatePermission(asker: Asker, message: Turn.Message, now: number): Granting {
    const found = this.#own(asker)
    if ("_tag" in found) return found
    if (message.peers.length === 0) return refused(400)
    const hosts = message.peers.map(({ host }) => TurnPeers.canonical(host) ?? host)
    for (const host of hosts) {
      const invalid = this.#checkPeer(host)
      if (invalid !== 0) return refused(invalid)
    }
    const fresh = new Set(hosts.filter((host) => !found.permissions.has(host)))
    if (found.permissions.size + fresh.size > this.#limits.permissions) return refused(508)
    for (const host of hosts) found.permissions.set(host, now + PERMISSION_MS)
    return GRANTED
  }

  /** Handles a ChannelBind request, which also permits the peer. */
  onChannelBind(asker: Asker, message: Turn.Message, now: number): Granting {
    const found = this.#own(asker)
    if ("_tag" in found) return found
    const { channel, peers: [asked] } = message
    if (channel === null || channel < Turn.FIRST_CHANNEL || channel > Turn.LAST_CHANNEL) return refused(400)
    if (asked === undefined || asked.port === 0) return refused(400)
    const peer = { host: TurnPeers.canonical(asked.host) ?? asked.host, port: asked.port }
    const invalid = this.#checkPeer(peer.host)
    if (invalid !== 0) return refused(invalid)
    const peerKey = keyOf(peer.host, peer.port)
    const bound = found.channels.get(channel)
    if (bound !== undefined && bound.peerKey !== peerKey) return refused(400)
    if ((found.channelOf.get(peerKey) ?? channel) !== channel) return refused(400)
    if (bound === undefined && found.channels.size >= this.#limits.channels) return refused(508)
    if (!found.permissions.has(peer.host) && found.permissions.size >= this.#limits.permissions) return refused(508)
    found.permissions.set(peer.host, now + PERMISSION_MS)
    found.channels.set(channel, { peer, peerKey, until: now + CHANNEL_MS })
    found.channelOf.set(peerKey, channel)
    return GRANTED
  }

  /**
   * Whether a datagram of `bytes` may go to this peer: there is a permission, and the user's rate
   * allows it. If so, the bytes count against the rate.
   */
  maySend(allocation: Allocation, host: string, bytes: number, now: number): boolean {
    return (allocation.permissions.get(host) ?? 0) > now && allocation.expiresAt > now &&
      allocation.user.bucket.take(bytes, now)
  }

  /** Returns the peer to which ChannelData goes. `null` if no peer is bound to the channel. */
  peerOf(allocation: Allocation, channel: number, now: number): SocketAddr | null {
    const bound = allocation.channels.get(channel)
    return bound === undefined || bound.until <= now ? null : bound.peer
  }

  /**
   * Returns how a peer's datagram goes to the client: the number of a channel, or 0 for a Data
   * indication. `null` if it may not pass.
   */
  onPeer(allocation: Allocation, host: string, port: number, bytes: number, now: number): number | null {
    if (!this.maySend(allocation, host, bytes, now)) return null
    const channel = allocation.channelOf.get(keyOf(host, port))
    return channel === undefined || (allocation.channels.get(channel)?.until ?? 0) <= now ? 0 : channel
  }

  /** Ends an allocation, also when its client has gone. */
  end(allocation: Allocation): void {
    const { addressId, client, relayed, user, userId } = allocation
    if (this.#byTuple.get(client.tuple) !== allocation) return
    this.#byTuple.delete(client.tuple)
    if (relayed !== null) this.#byPort.delete(relayed.port)
    if (--user.count === 0) this.#users.delete(userId)
    const left = (this.#addresses.get(addressId) ?? 1) - 1
    if (left === 0) this.#addresses.delete(addressId)
    else this.#addresses.set(addressId, left)
  }

  /** Ends all allocations of a user and returns them. */
  endUser(userId: string): ReadonlyArray<Allocation> {
    const ended = [...this.#byTuple.values()].filter((allocation) => allocation.userId === userId)
    for (const allocation of ended) this.end(allocation)
    return ended
  }

  /**
   * Ends everything that has expired, and returns the allocations that ended. Call it about once a
   * second.
   */
  tick(now: number): ReadonlyArray<Allocation> {
    const ended: Array<Allocation> = []
    for (const allocation of this.#byTuple.values()) {
      if (allocation.expiresAt <= now) {
        ended.push(allocation)
        continue
      }
      const { channelOf, channels, permissions } = allocation
      for (const [host, until] of permissions) if (until <= now) permissions.delete(host)
      for (const [number, { peerKey, until }] of channels) {
        if (until + CHANNEL_REST_MS > now) continue
        channels.delete(number)
        channelOf.delete(peerKey)
      }
    }
    for (const allocation of ended) this.end(allocation)
    return ended
  }

  /**
   * Checks a request in the order of RFC 8656, section 7.2. Returns an error code, or 0 if it is
   * valid. No second port is ever reserved, so a request for a reserved one fails.
   */
  #checkAllocate({ evenPort, family, reservation, transport }: Turn.Message): number {
    if (transport === null) return 400
    if (transport !== Turn.UDP) return 442
    if (reservation) return evenPort !== null || family !== null ? 400 : 508
    if (family !== null && family !== this.#family) return 440
    return evenPort?.reserve === true ? 508 : 0
  }

  #checkPeer(host: string): number {
    if (canonicalFamily(host) !== this.#family) return 443
    return host === this.#options.relayedHost || this.#options.mayRelayTo(host) ? 0 : 403
  }

  /** Returns the asker's allocation, whose socket must be open. */
  #own({ client, username }: Asker): Allocation | Refused {
    const found = this.#byTuple.get(client.tuple)
    if (found === undefined || found.relayed === null) return refused(437)
    return found.username === username ? found : refused(441)
  }
}

const canonicalFamily = (host: string): 4 | 6 => familyOf(TurnPeers.canonical(host) ?? host)
const keyOf = (host: string, port: number): string => `${port} ${host}`
const lifetimeFor = (wanted: number | null): number =>
  Math.min(MAX_LIFETIME, Math.max(DEFAULT_LIFETIME, wanted ?? DEFAULT_LIFETIME))
