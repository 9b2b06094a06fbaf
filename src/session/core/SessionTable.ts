/**
 * The sessions of a node or of a page, by their ids. What is kept with a session is its owner's
 * choice. Iteration is by age and sees a removal at once.
 */

/** Sessions by id, at most `max` of them. */
export class SessionTable<Entry> implements Iterable<Entry> {
  readonly #entries = new Map<string, Entry>()
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  get size(): number {
    return this.#entries.size
  }

  /** Whether another session must be refused. */
  get isFull(): boolean {
    return this.#entries.size >= this.#max
  }

  [Symbol.iterator](): IterableIterator<Entry> {
    return this.#entries.values()
  }

  /** Adds a session. It replaces an earlier one with the same id. */
  add(id: string, entry: Entry): void {
    this.#entries.set(id, entry)
  }

  get(id: string): Entry | undefined {
    return this.#entries.get(id)
  }

  has(id: string): boolean {
    return this.#entries.has(id)
  }

  /** Removes a session and returns it. `undefined` if there is none, so that it ends only once. */
  remove(id: string): Entry | undefined {
    const entry = this.#entries.get(id)
    this.#entries.delete(id)
    return entry
  }

  /** Finds the oldest session for which `is` holds. */
  find(is: (entry: Entry) => boolean): Entry | undefined {
    for (const entry of this) if (is(entry)) return entry
    return undefined
  }

  /** Lists the sessions as they are now. */
  all(): ReadonlyArray<Entry> {
    return [...this.#entries.values()]
  }
}
