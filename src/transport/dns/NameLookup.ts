/**
 * Looks up one name: its candidates by the search list, both address families of each, and the C
 * library for names that DNS does not know.
 */
import { familyOf } from "../../protocol/bytes/SocketAddr.ts"
import type { Address } from "../../protocol/flow/ResolverFiles.ts"
import { ask, type Channels, type Outcome, type Server } from "./NameServers.ts"
import type { SystemLookup } from "./SystemLookup.ts"

/**
 * How long IPv4 addresses wait for the answer about IPv6, in milliseconds (RFC 8305, section 3).
 */
const RESOLUTION_DELAY_MS = 50
/**
 * How long to wait for AAAA after A was answered with "no such name", in milliseconds. Servers that
 * drop AAAA questions are common (RFC 4074).
 */
const BROKEN_AAAA_MS = 1000

/** Reason why a name has no addresses. */
export type Failure =
  /** There is no such name, or it has no address. */
  | { readonly _tag: "NotFound" }
  | { readonly _tag: "TimedOut" }
  /** A name server replied with an error; `code` is its name in DNS. */
  | { readonly _tag: "ServerFailed"; readonly code: string }
  /** DNS does not know the name, and the C library was busy with other names. */
  | { readonly _tag: "SystemBusy" }

type Found = Outcome & { readonly _tag: "Found" }

/** Receiver of a lookup's results. */
export interface Listener {
  /** Called with addresses, at most twice. `isLast` means that no more will come. */
  readonly onFound: (addresses: ReadonlyArray<Address>, ttlSeconds: number, isLast: boolean) => void
  /** Called when no address was found. No callback follows. */
  readonly onFailed: (failure: Failure) => void
}

/** Options of {@link NameLookup}. */
export interface Options {
  /** Names to ask for, in order. */
  readonly candidates: ReadonlyArray<string>
  /** Name to look up by the C library. `null` if the C library would know no more than DNS. */
  readonly systemName: string | null
  /** Name servers to ask, in order. */
  readonly servers: ReadonlyArray<Server>
  readonly channels: Channels
  readonly system: SystemLookup
  readonly now: () => number
}

/** Lifetime in seconds of addresses from the C library, which does not report their TTL. */
const SYSTEM_TTL_SECONDS = 30

/**
 * One lookup of one name. It may report IPv6 addresses before the IPv4 ones have arrived (RFC 8305,
 * section 3).
 */
export class NameLookup {
  readonly #options: Options
  readonly #listener: Listener
  #next = 0
  readonly #known = new Map<4 | 6, Outcome>()
  readonly #told = new Set<Found>()
  #serverFailed: Failure | null = null
  #timer: NodeJS.Timeout | null = null
  #stops: Array<() => void> = []
  #over = false

  constructor(options: Options, listener: Listener) {
    this.#options = options
    this.#listener = listener
  }

  begin(): void {
    this.#askNext()
  }

  /** Stops the lookup: nothing is called any more, and all its sockets are closed. */
  cancel(): void {
    this.#over = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    for (const stop of this.#stops) stop()
    this.#options.channels.cancel()
  }

  #askNext(): void {
    const { candidates, channels, now, servers } = this.#options
    const name = candidates[this.#next]
    this.#next += 1
    if (name === undefined) return this.#askSystem(this.#serverFailed ?? { _tag: "NotFound" })
    this.#known.clear()
    this.#stops = []
    for (const family of [6, 4] as const) {
      const stop = ask({ name, family, servers, channels, now }, (outcome) => this.#onOutcome(family, outcome))
      this.#stops.push(stop)
    }
  }

  #onOutcome(family: 4 | 6, outcome: Outcome): void {
    if (this.#over || this.#known.has(family)) return
    this.#known.set(family, outcome)
    const four = this.#known.get(4)
    const six = this.#known.get(6)
    if (four !== undefined && six !== undefined) return this.#onBoth(four, six)
    if (outcome._tag === "Found") {
      if (family === 6) return this.#tell([outcome], false)
      return this.#after(RESOLUTION_DELAY_MS, () => this.#tell([outcome], false))
    }
    const isMissing = family === 4 && outcome._tag === "Missing" && !outcome.nameExists
    if (isMissing) this.#after(BROKEN_AAAA_MS, () => this.#onOutcome(6, outcome))
  }

  #onBoth(four: Outcome, six: Outcome): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    const found = [six, four].filter((outcome) => outcome._tag === "Found")
    if (found.length > 0) return this.#tell(found, true)
    for (const stop of this.#stops) stop()
    this.#onNothing(four, six)
  }

  /** Passes addresses on, without those that were passed on before. */
  #tell(found: ReadonlyArray<Found>, isLast: boolean): void {
    const news = found.filter((outcome) => !this.#told.has(outcome))
    for (const outcome of news) this.#told.add(outcome)
    if (isLast) this.cancel()
    const addresses = news.flatMap((outcome) =>
      outcome.addresses.map((address): Address => ({ address, family: familyOf(address) }))
    )
    this.#listener.onFound(addresses, Math.min(...found.map(({ ttlSeconds }) => ttlSeconds)), isLast)
  }

  #onNothing(four: Outcome, six: Outcome): void {
    const isMissing = four._tag === "Missing" && (six._tag === "Missing" || !four.nameExists)
    if (isMissing) return this.#askNext()
    const failed = [four, six].filter((outcome) => outcome._tag === "Failed")
    // A server that does not answer would not answer for the next name either.
    if (failed.some(({ timedOut }) => timedOut)) return this.#askSystem({ _tag: "TimedOut" })
    this.#serverFailed ??= { _tag: "ServerFailed", code: failed[0]?.code ?? "" }
    this.#askNext()
  }

  #askSystem(failure: Failure): void {
    const { system, systemName } = this.#options
    if (systemName === null) return this.#fail(failure)
    this.#stops = [system.lookup(systemName, (outcome) => {
      if (this.#over) return
      if (outcome._tag === "Busy") return this.#fail(failure._tag === "NotFound" ? { _tag: "SystemBusy" } : failure)
      if (outcome._tag === "Missing" || outcome.addresses.length === 0) return this.#fail(failure)
      this.cancel()
      this.#listener.onFound(outcome.addresses, SYSTEM_TTL_SECONDS, true)
    })]
  }

  #fail(failure: Failure): void {
    this.cancel()
    this.#listener.onFailed(failure)
  }

  #after(ms: number, then: () => void): void {
    this.#timer = setTimeout(() => {
      this.#timer = null
      if (!this.#over) then()
    }, ms)
  }
}
