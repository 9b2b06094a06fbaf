/** A host with sockets behind a modelled translator (RFC 4787), and a STUN server outside. Time is simulated. */
import type { SocketAddr } from "../../src/protocol/bytes/SocketAddr.ts"
import * as NatDiscovery from "../../src/protocol/nat/NatDiscovery.ts"
import type { Dependence, NatReport } from "../../src/protocol/nat/NatReport.ts"
import { makeStats } from "../../src/transport/relay/RelayStats.ts"
import { type Neighbours, StunServer } from "../../src/transport/relay/StunServer.ts"
import { randomOf } from "./world/Random.ts"
import { Timeline } from "./world/Timeline.ts"
import { type Nat, Translator } from "./world/Translator.ts"

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
/** Nothing translates. */
const PUBLIC_HOST: Nat = {
  mapping: "endpoint-independent",
  filtering: "endpoint-independent",
  allocation: { kind: "preserving" },
  hairpin: false,
  pool: 1
}

/** What discovery reports, and how long it took. */
export const run = (world: World): { readonly report: NatReport; readonly ms: number; readonly sends: number } => {
  const oneWay = (world.rttMs ?? 20) / 2
  const { nat } = world
  const time = new Timeline()
  let packets = 0
  let sends = 0
  const later = (run: () => void) => {
    if (!(world.lose?.(packets++) ?? false)) time.after(oneWay, run)
  }
  const behaviour = nat ?? { ...PUBLIC_HOST, filtering: world.firewall ?? "endpoint-independent" }
  const first = nat === null ? PUBLIC : "198.51.100.2"
  const translator = new Translator({
    nat: behaviour,
    host: (n) => first.replace(/\d+$/, (last) => `${Number(last) + n}`),
    random: randomOf(world.seed ?? 1)
  })
  const deliver = (from: SocketAddr, to: SocketAddr, bytes: Uint8Array) => {
    const local = translator.in(to, from)
    if (local !== undefined) discovery.onDatagram(local - FIRST_LOCAL_PORT, from, bytes, time.now)
  }

  // -- the server
  const stun = new StunServer({ mayAnswer: () => true, stats: makeStats(), now: () => time.now, allowLonger: false })
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
    now: time.now
  })
  for (;;) {
    const poll = discovery.poll(time.now)
    for (const { bytes, socket, to } of poll.sends) {
      sends++
      const outside = translator.out(FIRST_LOCAL_PORT + socket, to)
      const index = indexOf(to.host, to.port)
      if (index !== undefined) {
        later(() => stun.onUdp(bytes, { address: outside.host, port: outside.port }, index))
      } else if (nat?.hairpin === true) later(() => deliver(outside, to, bytes))
    }
    if (poll.report !== null) return { report: poll.report, ms: time.now, sends }
    if (!time.step(poll.wakeAt)) time.runUntil(poll.wakeAt)
  }
}
