/** A host with sockets behind a modelled translator (RFC 4787), and a STUN server outside. Time is simulated. */
import * as NatDiscovery from "../../src/protocol/NatDiscovery.ts"
import type { Dependence, NatReport } from "../../src/protocol/NatReport.ts"
import type { SocketAddr } from "../../src/protocol/SocketAddr.ts"
import { makeStats } from "../../src/transport/relay/RelayStats.ts"
import { type Neighbours, StunServer } from "../../src/transport/relay/StunServer.ts"

export type Allocation = { readonly kind: "preserving" | "random" } | {
  readonly kind: "sequential"
  readonly delta: number
}
export interface Nat {
  readonly mapping: Dependence
  readonly filtering: Dependence
  readonly allocation: Allocation
  readonly hairpin: boolean
  /** How many outside addresses it takes in turn. */
  readonly pool: number
}
export interface World {
  /** Null: none; the host has a public address. */
  readonly nat: Nat | null
  /** What lets packets in where there is no translator. */
  readonly firewall?: Dependence
  readonly server: "two addresses" | "two ports" | "plain"
  /** The server says that it has a second address, and nothing ever comes from there. */
  readonly deadAddress?: boolean
  readonly rttMs?: number
  /** Whether the n-th packet is lost. */
  readonly lose?: (n: number) => boolean
  readonly seed?: number
}

export const SERVER = { host: "203.0.113.10", port: 3478 }
const OTHER = { host: "203.0.113.11", port: 3479 }
const INSIDE = "192.168.1.10"
const PUBLIC = "198.51.100.2"
const FIRST_LOCAL_PORT = 40_000

type Mapping = { readonly local: number; readonly outside: SocketAddr; readonly sentTo: Set<string> }

const lcg = (seed: number) => {
  let state = seed >>> 0
  return (limit: number) => Math.floor(((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32) * limit)
}

/** What discovery reports, and how long it took. */
export const run = (world: World): { readonly report: NatReport; readonly ms: number; readonly sends: number } => {
  const random = lcg(world.seed ?? 1)
  const oneWay = (world.rttMs ?? 20) / 2
  const { nat } = world
  const events: Array<{ readonly at: number; readonly run: () => void }> = []
  let now = 0
  let packets = 0
  let sends = 0
  const later = (run: () => void) => {
    if (!(world.lose?.(packets++) ?? false)) events.push({ at: now + oneWay, run })
  }

  // -- the translator
  const mappings = new Map<string, Mapping>()
  let counter = 20_000
  let turn = 0
  const used = new Set<string>()
  const allocate = (local: number): SocketAddr => {
    const host = `198.51.100.${2 + turn++ % nat!.pool}`
    const candidate = () => {
      switch (nat!.allocation.kind) {
        case "preserving":
          return used.has(`${host}|${local}`) ? 1024 + random(64_000) : local
        case "random":
          return 1024 + random(64_000)
        case "sequential":
          return counter += nat!.allocation.delta
      }
    }
    let port = candidate()
    while (used.has(`${host}|${port}`)) port = candidate()
    used.add(`${host}|${port}`)
    return { host, port }
  }
  const mappingFor = (local: number, to: SocketAddr): Mapping => {
    const by = nat?.mapping ?? "endpoint-independent"
    const key = by === "endpoint-independent"
      ? `${local}`
      : by === "address-dependent"
      ? `${local}|${to.host}`
      : `${local}|${to.host}|${to.port}`
    const known = mappings.get(key)
    if (known !== undefined) return known
    const made = {
      local,
      outside: nat === null ? { host: PUBLIC, port: local } : allocate(local),
      sentTo: new Set<string>()
    }
    mappings.set(key, made)
    return made
  }
  const deliver = (from: SocketAddr, to: SocketAddr, bytes: Uint8Array) => {
    const filtering = nat?.filtering ?? world.firewall ?? "endpoint-independent"
    const found = [...mappings.values()].find(({ outside }) => outside.host === to.host && outside.port === to.port)
    const open = found !== undefined && (filtering === "endpoint-independent" ||
      found.sentTo.has(filtering === "address-dependent" ? from.host : `${from.host}|${from.port}`))
    if (open) discovery.onDatagram(found.local - FIRST_LOCAL_PORT, from, bytes, now)
  }

  // -- the server
  const stun = new StunServer({ mayAnswer: () => true, stats: makeStats(), now: () => now, allowLonger: false })
  const hosts = world.server === "two addresses" ? [SERVER.host, OTHER.host] : [SERVER.host]
  const ports = world.server === "plain" ? [SERVER.port] : [SERVER.port, OTHER.port]
  const places = hosts.flatMap((host) => ports.map((port) => ({ host, port })))
  const indexOf = (host: string, port: number) => {
    const index = places.findIndex((place) => place.host === host && place.port === port)
    return index < 0 ? undefined : index
  }
  const elsewhere = <A>(list: ReadonlyArray<A>, one: A) => list.find((other) => other !== one) ?? one
  for (const [index, place] of places.entries()) {
    const host = elsewhere(hosts, place.host)
    const port = elsewhere(ports, place.port)
    const neighbours: Neighbours = {
      port: port === place.port ? undefined : indexOf(place.host, port),
      address: host === place.host ? undefined : indexOf(host, place.port),
      both: host === place.host || port === place.port ? undefined : indexOf(host, port)
    }
    const send = (bytes: Uint8Array, offset: number, length: number, toPort: number, address: string) => {
      const copy = bytes.slice(offset, offset + length)
      if (!(world.deadAddress === true && place.host === OTHER.host)) {
        later(() => deliver(place, { host: address, port: toPort }, copy))
      }
    }
    stun.setSocket(index, { send }, world.server === "plain" ? null : place, neighbours)
  }

  let id = 0
  const discovery = new NatDiscovery.NatDiscovery({
    server: SERVER,
    localHost: nat === null ? PUBLIC : INSIDE,
    localPorts: Array.from({ length: NatDiscovery.SOCKETS }, (_, i) => FIRST_LOCAL_PORT + i),
    newTxId: () => Uint8Array.from({ length: 12 }, (_, i) => (++id >>> (8 * (i % 4))) & 255),
    now
  })
  for (;;) {
    const poll = discovery.poll(now)
    for (const { bytes, socket, to } of poll.sends) {
      sends++
      const mapping = mappingFor(FIRST_LOCAL_PORT + socket, to)
      mapping.sentTo.add(to.host).add(`${to.host}|${to.port}`)
      const index = indexOf(to.host, to.port)
      if (index !== undefined) {
        later(() => stun.onUdp(bytes, { address: mapping.outside.host, port: mapping.outside.port }, index))
      } else if (nat?.hairpin === true) later(() => deliver(mapping.outside, to, bytes))
    }
    if (poll.report !== null) return { report: poll.report, ms: now, sends }
    events.sort((a, b) => a.at - b.at)
    const next = events[0]
    if (next === undefined || next.at > poll.wakeAt) now = Math.max(now, poll.wakeAt)
    else {
      events.shift()
      now = next.at
      next.run()
    }
  }
}
