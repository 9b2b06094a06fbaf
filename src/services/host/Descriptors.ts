/**
 * Counts the descriptors (open files and sockets) of this process.
 *
 * Code that takes descriptors on behalf of others (accepted connections, dials, TURN allocations)
 * asks `hasRoom` first. The last ones are kept for the process itself, because a thread that cannot
 * open a file, a socket or its database ends.
 */
import { readdirSync, readFileSync, statSync } from "node:fs"

/** Number of descriptors that are open, and of those that are allowed. */
export interface Use {
  readonly open: number
  /**
   * Most descriptors of this process: the soft limit, which Node raises to the hard one when it
   * starts. `Infinity` if there is none or it cannot be read.
   */
  readonly limit: number
}

/**
 * Number of descriptors that are kept for the process itself. Starting a thread takes about 15, the
 * directory 3, and `netcheck` and each network change a few. The rest is for the admin API and for
 * reading files.
 */
const RESERVE = 64
/** Divisor that gives the reserve of a small limit: at most a quarter of the limit is kept. */
const RESERVE_SHARE = 4
/**
 * How long a count that came from listing a folder is used, in milliseconds. Descriptors requested
 * since then are added to it.
 */
const LISTING_MS = 1000
const FOLDERS = { linux: "/proc/self/fd", darwin: "/dev/fd" } as const

/**
 * Whether `more` descriptors are free for flows and other work for peers. The process keeps a
 * reserve for itself. The caller must use them at once, or not at all.
 */
export const hasRoom = (more = 1): boolean => room() >= more

/**
 * Returns how many descriptors are free for flows and other work for peers. 0 if only the reserve
 * of the process itself is left.
 */
export const room = (): number => {
  const { limit, open } = read()
  return Math.max(0, limit - reserveOf(limit) - open)
}

/** Returns how many descriptors the process keeps for itself under this limit. */
export const reserveOf = (limit: number): number => Math.min(RESERVE, Math.ceil(limit / RESERVE_SHARE))

/**
 * Counts the open descriptors. The count is exact on Linux 6.2 and newer. Elsewhere it may be one
 * second old, and then it is too high rather than too low.
 */
export const read = (): Use => ({ open: countOpen(), limit: limit ??= readLimit() })

let limit: number | null = null
let listed = { at: -Infinity, open: 0, asked: 0 }

const countOpen = (): number => {
  const folder = FOLDERS[process.platform as keyof typeof FOLDERS]
  if (folder === undefined) return 0
  // Since Linux 6.2 the size of this folder is the number of descriptors. Elsewhere the size means
  // nothing.
  const size = process.platform === "linux" ? sizeOf(folder) : 0
  if (size > 0) return size
  listed.asked += 1
  const now = performance.now()
  if (now - listed.at >= LISTING_MS) listed = { at: now, open: list(folder), asked: 0 }
  return listed.open + listed.asked
}

const sizeOf = (folder: string): number => {
  try {
    return statSync(folder).size
  } catch {
    return 0
  }
}

/**
 * Counts a folder's entries. Returns `Infinity` if no descriptor is left to list the folder with.
 */
const list = (folder: string): number => {
  try {
    return readdirSync(folder).length - 1 // without the descriptor of this listing
  } catch {
    return Infinity
  }
}

const readLimit = (): number => {
  try {
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))
    return found === null ? Infinity : Number(found[1])
  } catch {
    return Infinity
  }
}
