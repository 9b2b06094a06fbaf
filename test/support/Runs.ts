/**
 * How many cases a property or a simulation tries. `npm run fuzz` tries {@link FUZZ} times as many
 * as `npm test`.
 */
const FUZZ = Number(process.env["FUZZ"] ?? 1)

/** Returns how many cases to try, where `npm test` tries `usual`. */
export const runs = (usual: number): number => Math.ceil(usual * FUZZ)
