/**
 * Asks one question to several name servers. Each server has its own attempts, so a dead one delays
 * an answer by at most {@link HEDGE_MS}.
 *
 * Addresses from any server count at once. "No such name" from a later server counts only if the
 * earlier ones agree or are silent, because hosts often list a server that knows internal names
 * before one that does not.
 */
import dns from "node:dns"

/** Time in milliseconds without an answer after which the next server is asked as well. */
const HEDGE_MS = 400
/**
 * Time in milliseconds after which a server that has answered no question at all is silent. The
 * server after a silent one is asked at the same time.
 */
const SILENT_MS = 1000
/**
 * Longest first attempt in milliseconds, so that one lost packet does not cost 5 s, the default of
 * resolv.conf(5). Each later attempt takes twice as long.
 */
const MAX_TRY_MS = 1000
/** Most attempts at one server, whatever resolv.conf(5) says. */
const MAX_TRIES = 3

/** The result of a question. */
export type Outcome =
  | { readonly _tag: "Found"; readonly addresses: ReadonlyArray<string>; readonly ttlSeconds: number }
  /**
   * There are no addresses. `nameExists`: the name has other records (NODATA); otherwise there is
   * no such name (NXDOMAIN).
   */
  | { readonly _tag: "Missing"; readonly nameExists: boolean }
  /**
   * No server could answer. `timedOut`: none replied at all. Otherwise `code` is the error that one
   * of them replied.
   */
  | { readonly _tag: "Failed"; readonly timedOut: boolean; readonly code: string }

/** A name server, and whether it answers. All lookups share it. */
export class Server {
  /** Address in the form that `dns.setServers` takes. */
  readonly address: string
  #unansweredSince: number | null = null

  constructor(address: string) {
    this.address = address
  }

  onAsked(nowMs: number): void {
    this.#unansweredSince ??= nowMs
  }

  onAnswered(): void {
    this.#unansweredSince = null
  }

  /** Whether the server has left a question unanswered for {@link SILENT_MS}. */
  isSilent(nowMs: number): boolean {
    return this.#unansweredSince !== null && nowMs - this.#unansweredSince >= SILENT_MS
  }
}

/**
 * The resolvers of one lookup, one for each server. Lookups do not share them, because c-ares can
 * only cancel all questions of a channel together.
 */
export class Channels {
  readonly #open = new Map<Server, dns.Resolver>()
  readonly #options: { readonly timeout: number; readonly tries: number }

  constructor(timeoutSeconds: number, attempts: number) {
    this.#options = {
      timeout: Math.min(timeoutSeconds * 1000, MAX_TRY_MS),
      tries: Math.min(attempts + 1, MAX_TRIES)
    }
  }

  to(server: Server): dns.Resolver {
    const known = this.#open.get(server)
    if (known !== undefined) return known
    const made = new dns.Resolver(this.#options)
    made.setServers([server.address])
    this.#open.set(server, made)
    return made
  }

  cancel(): void {
    for (const resolver of this.#open.values()) resolver.cancel()
    this.#open.clear()
  }
}

/** A question: the addresses of one family of `name`. `servers` are asked in order. */
export interface Asked {
  readonly name: string
  readonly family: 4 | 6
  readonly servers: ReadonlyArray<Server>
  readonly channels: Channels
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
}

/**
 * Asks a question. `done` is called once. The returned function cancels; then `done` is not called.
 */
export const ask = (asked: Asked, done: (outcome: Outcome) => void): () => void => {
  const question = new Question(asked, done)
  question.begin()
  return () => question.end()
}

class Question {
  readonly #asked: Asked
  readonly #done: (outcome: Outcome) => void
  /** Indices of the servers that have not answered yet. */
  readonly #open = new Set<number>()
  #next = 0
  #missing: { readonly by: number; readonly outcome: Outcome } | null = null
  #failure: (Outcome & { readonly _tag: "Failed" }) | null = null
  #hedge: NodeJS.Timeout | null = null
  #patience: NodeJS.Timeout | null = null
  #over = false

  constructor(asked: Asked, done: (outcome: Outcome) => void) {
    this.#asked = asked
    this.#done = done
  }

  begin(): void {
    if (this.#asked.servers.length === 0) this.#finish({ _tag: "Failed", timedOut: false, code: "no name server" })
    else this.#askNext()
  }

  end(): void {
    this.#over = true
    if (this.#hedge !== null) clearTimeout(this.#hedge)
    if (this.#patience !== null) clearTimeout(this.#patience)
  }

  #askNext(): void {
    if (this.#hedge !== null) clearTimeout(this.#hedge)
    this.#hedge = null
    const { channels, family, name, now, servers } = this.#asked
    const by = this.#next
    const server = servers[by]
    if (this.#over || server === undefined) return
    this.#next += 1
    this.#open.add(by)
    if (this.#next < servers.length) {
      this.#hedge = setTimeout(() => this.#askNext(), server.isSilent(now()) ? 0 : HEDGE_MS)
    }
    server.onAsked(now())
    const onAnswer = (error: NodeJS.ErrnoException | null, records: ReadonlyArray<dns.RecordWithTtl>) =>
      this.#onAnswer(by, server, error, records)
    try {
      if (family === 4) channels.to(server).resolve4(name, { ttl: true }, onAnswer)
      else channels.to(server).resolve6(name, { ttl: true }, onAnswer)
    } catch { // c-ares rejects the server's address
      this.#onAnswer(by, server, Object.assign(new Error(), { code: "EBADSERVER" }), [])
    }
  }

  #onAnswer(
    by: number,
    server: Server,
    error: NodeJS.ErrnoException | null,
    records: ReadonlyArray<dns.RecordWithTtl>
  ): void {
    const code = error?.code ?? ""
    if (!UNHEARD.has(code)) server.onAnswered()
    if (this.#over) return
    this.#open.delete(by)
    if (error === null && records.length > 0) {
      const addresses = records.map(({ address }) => address)
      return this.#finish({ _tag: "Found", addresses, ttlSeconds: Math.min(...records.map(({ ttl }) => ttl)) })
    }
    if (error === null || code === "ENODATA" || code === "ENOTFOUND") {
      this.#missing ??= { by, outcome: { _tag: "Missing", nameExists: code !== "ENOTFOUND" } }
    } else {
      const failure = { _tag: "Failed", timedOut: UNHEARD.has(code), code: code.replace(/^E/, "") } as const
      if (this.#failure === null || this.#failure.timedOut) this.#failure = failure
    }
    this.#settle()
    if (!this.#over && this.#open.size === 0) this.#askNext()
  }

  #settle(): void {
    const { now, servers } = this.#asked
    const missing = this.#missing
    if (missing !== null) {
      const waits = [...this.#open].some((by) => by < missing.by && servers[by]?.isSilent(now()) === false)
      if (!waits) return this.#finish(missing.outcome)
      this.#patience ??= setTimeout(() => {
        this.#patience = null
        this.#settle()
      }, SILENT_MS)
    }
    if (this.#open.size > 0 || this.#next < servers.length) return
    this.#finish(missing?.outcome ?? this.#failure ?? { _tag: "Failed", timedOut: true, code: "TIMEOUT" })
  }

  #finish(outcome: Outcome): void {
    if (this.#over) return
    this.end()
    this.#done(outcome)
  }
}

/** Error codes that mean that c-ares received nothing from the server. */
const UNHEARD: ReadonlySet<string> = new Set(["ETIMEOUT", "ECANCELLED", "ECONNREFUSED", "EDESTRUCTION", "EBADSERVER"])
