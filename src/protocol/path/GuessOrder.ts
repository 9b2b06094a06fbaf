/**
 * Order in which the ports of a NAT are guessed, each once: where a counter must have got to, then
 * near the ports that were seen (carriers give a customer a block of ports), then anywhere.
 */
import { familyOf, type SocketAddr } from "../bytes/SocketAddr.ts"
import * as Candidate from "../candidate/Candidate.ts"

/** Lowest port that is guessed. */
export const MIN_PORT = 1_024
/** Number of ports from {@link MIN_PORT} up. Lower ones are not guessed. */
export const PORTS = 65_536 - MIN_PORT
/**
 * Steps of a counter that are tried. The peer has just opened 256 ports in a row, and other hosts
 * use the counter, too.
 */
const REACH = 640
/** Steps between the first guesses ahead of a counter. */
const FIRST_STRIDE = 128
/** Largest distance between ports that count as one block. */
export const BLOCK_PORTS = 4_096
/** Ports that are tried below and above a block. */
const AROUND_PORTS = 512
/** Fewest ports that can show a block. With fewer, it could be chance. */
const MIN_SEEN = 4
/**
 * Most outside addresses that are tried. A NAT with more of them leaves too few open ports on each.
 */
export const MAX_HOSTS = 4

/**
 * Yields the addresses to guess, most promising first. `seen`: outside addresses that the NAT gave,
 * oldest first. `delta`: by how much its port counter grows each time, or `null` if it has no
 * counter. Outside hosts take turns. The generator ends when it has yielded every port of every
 * host. Addresses that nobody should probe are left out.
 */
export function* of(seen: ReadonlyArray<SocketAddr>, delta: number | null, seed: number): Generator<SocketAddr> {
  const byHost = new Map<string, Array<number>>()
  for (const { host, port } of seen) {
    const clean = Candidate.canonical(host)
    if (clean === null || familyOf(clean) !== 4 || !Candidate.isUsableHost(clean, false)) continue
    const ports = byHost.get(clean)
    if (ports !== undefined) ports.push(port)
    else if (byHost.size < MAX_HOSTS) byHost.set(clean, [port])
  }
  const random = randomOf(seed)
  let turns = [...byHost].map(([host, ports]) => ({ host, ports: once(portsOf(ports, delta, random)) }))
  while (turns.length > 0) {
    const left: typeof turns = []
    for (const turn of turns) {
      const next = turn.ports.next()
      if (next.done === true) continue
      left.push(turn)
      yield { host: turn.host, port: next.value }
    }
    turns = left
  }
}

function* portsOf(seen: ReadonlyArray<number>, delta: number | null, random: () => number): Generator<number> {
  const last = seen.at(-1)
  if (last !== undefined && delta !== null && delta !== 0) yield* ahead(last, delta)
  const low = Math.min(...seen)
  const high = Math.max(...seen)
  if (seen.length >= MIN_SEEN && high - low <= BLOCK_PORTS) {
    yield* shuffled(Math.max(MIN_PORT, low - AROUND_PORTS), Math.min(65_535, high + AROUND_PORTS), random)
  }
  yield* shuffled(MIN_PORT, 65_535, random)
}

/** Yields ports ahead of a counter, wide strides first: any one of 256 ports in a row will do. */
function* ahead(last: number, delta: number): Generator<number> {
  for (let k = FIRST_STRIDE; k <= REACH; k += FIRST_STRIDE) yield within(last + delta * k)
  for (let stride = FIRST_STRIDE / 2; stride >= 1; stride /= 2) {
    for (let k = stride; k <= REACH; k += 2 * stride) yield within(last + delta * k)
  }
}

const within = (port: number): number => MIN_PORT + (((port - MIN_PORT) % PORTS) + PORTS) % PORTS

/** Fisher-Yates shuffle that keeps only the entries that moved. */
function* shuffled(from: number, to: number, random: () => number): Generator<number> {
  const moved = new Map<number, number>()
  for (let last = to; last >= from; last--) {
    const at = from + Math.floor(random() * (last - from + 1))
    const taken = moved.get(at) ?? at
    moved.set(at, moved.get(last) ?? last)
    moved.delete(last)
    yield taken
  }
}

function* once(ports: Iterable<number>): Generator<number> {
  const given = new Set<number>()
  for (const port of ports) {
    if (given.has(port)) continue
    given.add(port)
    yield port
  }
}

/**
 * Random numbers by Mulberry32. The order of the ports is not secret; it only must differ from one
 * attempt to the next.
 */
const randomOf = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
}
