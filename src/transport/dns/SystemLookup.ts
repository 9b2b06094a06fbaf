/**
 * Looks up names that only the C library knows (mDNS, this host's own name, directories), by
 * `getaddrinfo`. A call cannot be cancelled, and it blocks a thread of a pool that the whole
 * process shares, so few lookups run at once and few wait.
 */
import dns from "node:dns"
import type { Address } from "../../protocol/flow/ResolverFiles.ts"

/**
 * Most lookups at once. libuv gives `getaddrinfo` half of its four threads, so more would only wait
 * there.
 */
const MAX_RUNNING = 2
/** Most lookups that wait for a turn. One more fails at once. */
const MAX_WAITING = 16
/**
 * Longest wait for a turn, in milliseconds. A longer one means that names without an answer hold up
 * the C library.
 */
const MAX_WAIT_MS = 2000

/** The result of a lookup. */
export type Outcome =
  | { readonly _tag: "Found"; readonly addresses: ReadonlyArray<Address> }
  | { readonly _tag: "Missing" }
  /** The lookup did not get a turn. */
  | { readonly _tag: "Busy" }

export type Ask = (name: string) => Promise<ReadonlyArray<{ readonly address: string; readonly family: number }>>

/**
 * Looks up names by the C library, and limits how many lookups run. All lookups of a resolver share
 * one instance.
 */
export class SystemLookup {
  readonly #ask: Ask
  readonly #waiting = new Set<() => void>()
  #running = 0

  constructor(ask: Ask = (name) => dns.promises.lookup(name, { all: true, verbatim: true })) {
    this.#ask = ask
  }

  /**
   * Looks up a name. `done` is called once. The returned function cancels; then `done` is not
   * called.
   */
  lookup(name: string, done: (outcome: Outcome) => void): () => void {
    if (this.#running < MAX_RUNNING) return this.#run(name, done)
    if (this.#waiting.size >= MAX_WAITING) {
      done({ _tag: "Busy" })
      return () => {}
    }
    let giveUp = () => {
      clearTimeout(timer)
      this.#waiting.delete(turn)
    }
    const turn = () => {
      giveUp()
      giveUp = this.#run(name, done)
    }
    const timer = setTimeout(() => {
      giveUp()
      done({ _tag: "Busy" })
    }, MAX_WAIT_MS)
    this.#waiting.add(turn)
    return () => giveUp()
  }

  #run(name: string, done: (outcome: Outcome) => void): () => void {
    let over = false
    this.#running += 1
    const finish = (outcome: Outcome) => {
      this.#running -= 1
      const [turn] = this.#waiting
      turn?.()
      if (!over) done(outcome)
    }
    this.#ask(name).then(
      (found) =>
        finish({
          _tag: "Found",
          addresses: found.map(({ address, family }) => ({ address, family: family === 6 ? 6 : 4 }))
        }),
      () => finish({ _tag: "Missing" })
    )
    return () => {
      over = true
    }
  }
}
