/**
 * Resolves names for dials (decision 27). Equal questions share one lookup, and answers are kept
 * for their TTL. A name whose servers do not answer delays no other name, because lookups share no
 * pool and are limited by zone and by client.
 */
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type { Verdict } from "../../protocol/flow/FlowWire.ts"
import { type Address, MAX_NAME_CHARS } from "../../protocol/flow/ResolverFiles.ts"
import { HostFiles, type Paths } from "./HostFiles.ts"
import { type Failure, NameLookup } from "./NameLookup.ts"
import { Channels, Server } from "./NameServers.ts"
import { SystemLookup } from "./SystemLookup.ts"

/**
 * Most lookups at once; each has a socket for each name server. One more fails at once. The same
 * holds for the two limits below.
 */
const MAX_LOOKUPS = 256
/** Most lookups at once that one client has started. */
const MAX_OF_CLIENT = 64
/**
 * Most lookups at once of names with the same parent (`a.dead.test` and `b.dead.test`), so that a
 * dead zone leaves room for others.
 */
const MAX_OF_ZONE = 32
/** Most names that are remembered. One more removes the oldest. */
const MAX_KEPT = 1024
/**
 * Longest time for a lookup, in milliseconds. A dial has 10 s, and should report that it waited for
 * the name.
 */
const DEADLINE_MS = 8000
/**
 * Shortest time in seconds for which addresses are used, so that a TTL of 0 does not cause a
 * question for each flow.
 */
const MIN_TTL_SECONDS = 1
/**
 * Longest time in seconds for which addresses are used, whatever their TTL, so that a moved service
 * is noticed.
 */
const MAX_TTL_SECONDS = 300
/**
 * Time in milliseconds after which a name without addresses, or whose servers fail, is asked for
 * again. Someone may be correcting it.
 */
const NEGATIVE_TTL_MS = 5000

/** Receiver of a lookup's results. */
export interface Listener {
  /** Called with addresses, at most twice. `isLast` means that no more will come. */
  readonly onFound: (addresses: ReadonlyArray<Address>, isLast: boolean) => void
  /** Called when no address was found. No callback follows. */
  readonly onFailed: (verdict: Verdict) => void
}

/** Options of {@link Names}. */
export interface Options {
  readonly paths?: Paths
  /** Port of the name servers. Default: 53. */
  readonly port?: number
  readonly system?: SystemLookup
  /** Returns the current time in milliseconds (monotonic). */
  readonly now?: () => number
}

interface Entry {
  readonly listeners: Set<Listener>
  readonly client: string
  readonly zone: string
  readonly version: number
  readonly addresses: Array<Address>
  failure: Verdict | null
  ttlSeconds: number
  /** Stops the lookup. `null` if it has ended. */
  cancel: (() => void) | null
  expiresAt: number
}

/** Resolver with a cache. One instance is shared by all dials of a thread. */
export class Names {
  readonly #files: HostFiles
  readonly #port: number
  readonly #system: SystemLookup
  readonly #now: () => number
  readonly #entries = new Map<string, Entry>()
  #servers: ReadonlyArray<Server> = []
  #version = 0

  constructor(options: Options = {}) {
    this.#files = new HostFiles(options.paths)
    this.#port = options.port ?? 53
    this.#system = options.system ?? new SystemLookup()
    this.#now = options.now ?? (() => performance.now())
  }

  /** Number of lookups that are running. */
  get lookups(): number {
    return this.#asking().length
  }

  /**
   * Looks up a name. The listener may be called before this returns. The returned function cancels;
   * then the listener is not called any more.
   */
  lookup(host: string, client: string, listener: Listener): () => void {
    this.#refresh()
    const absolute = host.endsWith(".")
    const name = host.toLowerCase().replace(/\.$/, "")
    if (!isName(name)) return failed(listener, "name_not_found", `${host} is no name that can be looked up`)
    const local = name === "localhost" || name.endsWith(".localhost") ? LOCALHOST : this.#files.hosts.get(name)
    if (local !== undefined) {
      listener.onFound(local, true)
      return () => {}
    }
    const key = absolute ? `${name}.` : name
    const known = this.#entries.get(key)
    if (known !== undefined && (known.cancel !== null || this.#now() < known.expiresAt)) {
      return this.#join(key, known, listener)
    }
    this.#entries.delete(key)
    const zone = name.slice(name.indexOf(".") + 1)
    const busy = this.#busy(client, zone)
    if (busy !== null) return failed(listener, "too_many_flows", busy)
    const { begin, entry } = this.#make(key, name, absolute, client, zone)
    this.#entries.set(key, entry)
    const leave = this.#join(key, entry, listener)
    begin()
    return leave
  }

  /** Gives the listener what is known now and adds it for what comes later. */
  #join(key: string, entry: Entry, listener: Listener): () => void {
    if (entry.failure !== null) listener.onFailed(entry.failure)
    else if (entry.cancel === null) listener.onFound(entry.addresses, true)
    else {
      entry.listeners.add(listener)
      if (entry.addresses.length > 0) listener.onFound([...entry.addresses], false)
    }
    return () => {
      entry.listeners.delete(listener)
      if (entry.cancel !== null && entry.listeners.size === 0) this.#end(key, entry)
    }
  }

  #asking(): ReadonlyArray<Entry> {
    return [...this.#entries.values()].filter(({ cancel }) => cancel !== null)
  }

  /** Why no lookup can be started now. `null` if one can. */
  #busy(client: string, zone: string): string | null {
    const asking = this.#asking()
    const busy = "the connector already looks up"
    if (asking.filter((entry) => entry.zone === zone).length >= MAX_OF_ZONE) {
      return `${busy} ${MAX_OF_ZONE} names under ${zone}, whose name servers may not answer`
    }
    if (asking.filter((entry) => entry.client === client).length >= MAX_OF_CLIENT) {
      return `${busy} ${MAX_OF_CLIENT} names for this client`
    }
    return asking.length < MAX_LOOKUPS ? null : `${busy} ${MAX_LOOKUPS} names, whose name servers may not answer`
  }

  #make(key: string, name: string, absolute: boolean, client: string, zone: string) {
    const { attempts, timeoutSeconds } = this.#files.conf
    const entry: Entry = {
      listeners: new Set(),
      client,
      zone,
      version: this.#version,
      addresses: [],
      failure: null,
      ttlSeconds: MAX_TTL_SECONDS,
      cancel: null,
      expiresAt: 0
    }
    const lookup = new NameLookup({
      candidates: this.#files.candidates(name, absolute),
      systemName: this.#servers.length === 0 || this.#files.isForSystem(name) ? key : null,
      servers: this.#servers,
      channels: new Channels(timeoutSeconds, attempts),
      system: this.#system,
      now: this.#now
    }, {
      onFound: (addresses, ttlSeconds, isLast) => {
        entry.addresses.push(...addresses)
        entry.ttlSeconds = Math.min(entry.ttlSeconds, ttlSeconds)
        if (isLast) this.#end(key, entry)
        for (const each of entry.listeners) each.onFound(addresses, isLast)
      },
      onFailed: (failure) => this.#fail(key, entry, name, failure)
    })
    const deadline = setTimeout(() => {
      lookup.cancel()
      if (entry.addresses.length === 0) return this.#fail(key, entry, name, { _tag: "TimedOut" })
      this.#end(key, entry)
      for (const each of entry.listeners) each.onFound([], true)
    }, DEADLINE_MS)
    entry.cancel = () => {
      clearTimeout(deadline)
      lookup.cancel()
    }
    return { entry, begin: () => lookup.begin() }
  }

  #fail(key: string, entry: Entry, name: string, failure: Failure): void {
    const verdict = this.#verdictOf(name, failure)
    entry.failure = verdict
    this.#end(key, entry)
    for (const each of entry.listeners) each.onFailed(verdict)
  }

  /**
   * Ends a lookup. Its result is kept unless it has none, because every listener left, or the
   * resolver files have changed meanwhile.
   */
  #end(key: string, entry: Entry): void {
    entry.cancel?.()
    entry.cancel = null
    const hasLearnt = entry.addresses.length > 0 || entry.failure !== null
    if (!hasLearnt || entry.version !== this.#version) return void this.#entries.delete(key)
    const seconds = Math.min(Math.max(entry.ttlSeconds, MIN_TTL_SECONDS), MAX_TTL_SECONDS)
    entry.expiresAt = this.#now() + (entry.failure === null ? seconds * 1000 : NEGATIVE_TTL_MS)
    for (const [oldest, { cancel }] of this.#entries) {
      if (this.#entries.size <= MAX_KEPT) break
      if (cancel === null && oldest !== key) this.#entries.delete(oldest)
    }
  }

  /**
   * Reads the resolver files again and drops what was learnt with other ones. Running lookups
   * continue, but their results are not kept.
   */
  #refresh(): void {
    this.#files.refresh(this.#now())
    if (this.#files.version === this.#version) return
    this.#version = this.#files.version
    for (const [key, { cancel }] of this.#entries) if (cancel === null) this.#entries.delete(key)
    // c-ares as Node drives it takes no zone, so a link-local server cannot be asked. The C library
    // can ask it.
    this.#servers = this.#files.conf.servers.filter((server) => !server.includes("%")).map((server) =>
      new Server(renderHostPort({ host: server, port: this.#port }))
    )
  }

  #verdictOf(name: string, failure: Failure): Verdict {
    const count = this.#servers.length
    const servers = count === 1 ? "the connector's name server" : `the connector's ${count} name servers`
    switch (failure._tag) {
      case "NotFound":
        return { code: "name_not_found", reason: `${servers} and hosts file have no address for ${name}` }
      case "TimedOut":
        return { code: "timed_out", reason: `${servers} did not answer for ${name}` }
      case "ServerFailed":
        return { code: "unreachable", reason: `${servers} cannot say where ${name} is (${failure.code})` }
      case "SystemBusy":
        return {
          code: "name_not_found",
          reason: `${servers} have no address for ${name}, and the system's own lookup is busy with other names`
        }
    }
  }
}

const LOCALHOST: ReadonlyArray<Address> = [{ address: "127.0.0.1", family: 4 }, { address: "::1", family: 6 }]

/** Whether resolvers take this as a name, judged by its length and labels. */
const isName = (name: string): boolean =>
  name.length <= MAX_NAME_CHARS && name.split(".").every((label) => /^[a-z0-9_-]{1,63}$/.test(label))

const failed = (listener: Listener, code: Verdict["code"], reason: string): () => void => {
  listener.onFailed({ code, reason })
  return () => {}
}
