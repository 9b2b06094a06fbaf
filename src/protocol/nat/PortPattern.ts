/**
 * Pattern of the outside ports that a NAT gives to new sockets. It follows from what a server saw
 * of some sockets that were opened one after the other.
 */
import type { SocketAddr } from "../bytes/SocketAddr.ts"
import type { Ports } from "./NatReport.ts"

/** Local port of a socket, and the address at which a server saw it. */
export type Sample = { readonly local: number; readonly mapped: SocketAddr }

/** Fewest samples that can show a pattern. With fewer, it could be chance. */
export const MIN_SAMPLES = 4
/** Fewest steps to compare, between ports of one outside address. */
const MIN_STEPS = 3
/**
 * Largest step of a counter that others use, too. A wider step is a jump: one is the counter's
 * wrap, more are chance.
 */
const MAX_STEP = 64

/** Returns the pattern. `samples` are in the order in which the sockets first sent. */
export const of = (samples: ReadonlyArray<Sample>): Ports => {
  const found = (value: Ports["value"], delta: number | null, reason: string | null): Ports => ({
    value,
    delta,
    samples: samples.length,
    reason
  })
  if (samples.length < MIN_SAMPLES) {
    return found("unknown", null, `${samples.length} sockets got an answer, and ${MIN_SAMPLES} are needed`)
  }
  const kept = samples.filter(({ local, mapped }) => local === mapped.port).length
  // A port that is taken cannot be kept, so most suffice.
  if (2 * kept > samples.length) return found("preserving", null, null)
  if (kept > 1) return found("unknown", null, `${kept} of ${samples.length} sockets kept their port`)
  const steps = stepsOf(samples)
  if (steps.length < MIN_STEPS) {
    return found("unknown", null, "the sockets are spread over several public addresses, with too few on each")
  }
  const near = steps.filter((step) => Math.abs(step) <= MAX_STEP)
  const oneWay = near.every((step) => Math.sign(step) === Math.sign(near[0]!) && step !== 0)
  if (near.length >= MIN_STEPS && near.length >= steps.length - 1 && oneWay) {
    return found("sequential", near.reduce((a, b) => gcd(a, b)) * Math.sign(near[0]!), null)
  }
  return found("random", null, null)
}

/** Steps between successive ports of each outside address, the shorter way round the 65,536. */
const stepsOf = (samples: ReadonlyArray<Sample>): ReadonlyArray<number> => {
  const last = new Map<string, number>()
  return samples.flatMap(({ mapped: { host, port } }) => {
    const before = last.get(host)
    last.set(host, port)
    return before === undefined ? [] : [((port - before + 98_304) % 65_536) - 32_768]
  })
}

/** Greatest common divisor, as a positive number. */
const gcd = (a: number, b: number): number => b === 0 ? Math.abs(a) : gcd(b, a % b)
