/** What happens when, in virtual time; of two events at one moment the one that was planned first comes first. Times: ms. */

interface Event {
  readonly at: number
  readonly n: number
  readonly run: () => void
}

export class Timeline {
  now = 0
  #n = 0
  /** A binary heap, the next event first. */
  readonly #heap: Array<Event> = []

  /** A moment that is over means now. */
  at(ms: number, run: () => void): void {
    const heap = this.#heap
    const event = { at: Math.max(ms, this.now), n: this.#n++, run }
    let i = heap.push(event) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!isBefore(event, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = event
  }

  after(ms: number, run: () => void): void {
    this.at(this.now + ms, run)
  }

  /** When the next event is due; Infinity: never. */
  get nextAt(): number {
    return this.#heap[0]?.at ?? Infinity
  }

  /** Runs the next event, at its time; false: there is none up to `ms`. */
  step(ms: number): boolean {
    const first = this.#heap[0]
    if (first === undefined || first.at > ms) return false
    const last = this.#heap.pop()!
    if (last !== first) this.#sink(last)
    this.now = first.at
    first.run()
    return true
  }

  /** Everything up to `ms`, which it then is. */
  runUntil(ms: number): void {
    while (this.step(ms));
    this.now = Math.max(this.now, ms)
  }

  /** Puts `event` in the place of the first one. */
  #sink(event: Event): void {
    const heap = this.#heap
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, event)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = event
  }
}

const isBefore = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.n < b.n)
