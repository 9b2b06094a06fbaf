/** Numbers and times, as the page writes them. */
/** Writes a number of bytes in the unit that suits it, such as `1.5 MiB`. */
export const bytes = (count: number): string => {
  const units = ["B", "KiB", "MiB", "GiB"]
  let at = 0
  while (count >= 1024 && at < units.length - 1) {
    count /= 1024
    at++
  }
  return `${at === 0 ? count : count.toFixed(1)} ${units[at]}`
}

/**
 * Writes a time span, with two digits after the point below 10 ms and one above. A dash for `null`.
 */
export const ms = (value: number | null): string => value === null ? "–" : `${value.toFixed(value < 10 ? 2 : 1)} ms`

export const clock = (epochMs: number): string => new Date(epochMs).toLocaleTimeString("en-GB")

/** Writes a time span in its largest unit: 90 s becomes `1 min`. */
export const ago = (seconds: number): string => {
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} d`
}

/** Writes a code as words: `relay_first (no UDP)` becomes `relay first (no UDP)`. */
export const words = (reason: string): string => reason.replaceAll("_", " ")
