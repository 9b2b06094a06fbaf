/** Plain text tables for a terminal. */

/**
 * Lays out rows in columns. Each column is as wide as its widest cell, columns are two spaces
 * apart, and no line ends in spaces.
 */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd())
    .join("\n")
}

const UNITS = ["B", "kB", "MB", "GB", "TB"]

/** Formats a number of bytes with at most three digits and a decimal unit (powers of 1,000). */
export const bytes = (count: number): string => {
  let value = count
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000
    unit += 1
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1
  return `${value.toFixed(digits)} ${UNITS[unit]}`
}

/** Colours `text` by its SGR number if `on` is set. */
export const colour = (on: boolean, sgr: number, text: string): string => on ? `\u001B[${sgr}m${text}\u001B[0m` : text
