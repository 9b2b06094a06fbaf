/** Numbers from a seed: the same ones each time, good enough to vary jitter and loss (mulberry32). */

export type Random = () => number

/** 0 to 1, never 1. */
export const randomOf = (seed: number): Random => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
