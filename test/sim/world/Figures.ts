/** Of numbers in any order; Infinity: there are none. */
export const quantile = (list: ReadonlyArray<number>, q: number): number =>
  list.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(q * list.length) - 1)] ?? Infinity
