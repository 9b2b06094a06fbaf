/**
 * The UDP sockets of a server, one for each address that its configured address stands for.
 * Addresses come and go, so `look` must be called about once a second. An address that cannot be
 * bound is skipped, reported and tried again.
 */
import { Effect, ExecutionStrategy, Exit, Scope } from "effect"
import { familyOf } from "../../protocol/bytes/SocketAddr.ts"
import type * as LocalAddresses from "../../services/network/LocalAddresses.ts"
import * as LocalHosts from "./LocalHosts.ts"
import type { UdpOpenError, UdpPort } from "./UdpPort.ts"

/**
 * How long a socket is kept after this machine has lost its address, in milliseconds. An interface
 * that is restarted has its address again within seconds.
 */
export const KEEP_MS = 60_000
/**
 * Wait in milliseconds before an address that could not be bound is tried again. It doubles up to
 * {@link MAX_RETRY_MS}.
 */
export const RETRY_MS = 1000
/** Longest wait in milliseconds before an address that could not be bound is tried again. */
export const MAX_RETRY_MS = 30_000

/** An open socket. */
export interface Held {
  /** Number of the socket. It is unique among all sockets that share `Numbers`. */
  readonly number: number
  readonly host: string
  /** The open socket. */
  readonly socket: UdpPort
}
/** An address that could not be bound. */
export interface Skipped {
  readonly host: string
  /** The system's name of the error, such as EADDRNOTAVAIL. */
  readonly code: string
}

/** Allocates numbers. It always gives the lowest free one. */
export class Numbers {
  readonly #taken = new Set<number>()

  /** Returns the lowest free number, which is taken from now on. */
  take(): number {
    let number = 0
    while (this.#taken.has(number)) number++
    this.#taken.add(number)
    return number
  }

  /** Frees a number. */
  free(number: number): void {
    this.#taken.delete(number)
  }
}

/** An address to bind a socket to. */
export interface Place {
  /** Literal address to bind to. */
  readonly host: string
  readonly port: number
  readonly family: 4 | 6
}

/** Options of {@link make}. */
export interface Options {
  /**
   * A literal address. An unspecified one (`0.0.0.0` or `::`) stands for all addresses of this
   * machine.
   */
  readonly host: string
  /** Port of all sockets. 0 picks a free one, the same for all addresses. */
  readonly port: number
  readonly numbers: Numbers
  readonly open: (place: Place, number: number) => Effect.Effect<UdpPort, UdpOpenError, Scope.Scope>
  /**
   * Whether the first `look` fails if it can bind nothing because the port is taken, a right is
   * missing or the configured address cannot be bound.
   */
  readonly required: boolean
  /**
   * Called when a socket was closed because this machine has not had its address for `KEEP_MS`. Its
   * number may be given to another socket.
   */
  readonly onDropped: (number: number) => void
  /** Called when a look after the first one opened or dropped a socket. */
  readonly onChange: () => void
  /** Called when an address is skipped for the first time, or for another reason than before. */
  readonly onSkipped: (error: UdpOpenError) => Effect.Effect<void>
  /** Returns the current time in milliseconds (monotonic). */
  readonly now: () => number
  readonly see?: () => LocalAddresses.Seen
}

/** The open sockets of a server. They close with the scope. */
export interface ListenSockets {
  /** The bound port, or the configured one while nothing is bound. */
  readonly port: () => number
  readonly held: () => ReadonlyArray<Held>
  readonly skipped: () => ReadonlyArray<Skipped>
  /**
   * Whether this machine's addresses could not be listed at the start. Wildcard sockets then serve
   * instead, permanently.
   */
  readonly blind: boolean
  readonly look: Effect.Effect<void>
}

type Open = Held & { readonly scope: Scope.CloseableScope; goneAt: number | null }
type Failing = { readonly code: string; readonly gapMs: number; readonly nextAt: number }

/** Opens sockets at all addresses that this machine has now. Fails only if `required` is set. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const parent = yield* Effect.scope
  const open = new Map<string, Open>()
  const failing = new Map<string, Failing>()
  let { port } = options
  const blind = LocalHosts.of(options.host, options.see) === null
  const wanted = (): ReadonlyArray<string> => {
    if (blind) return familyOf(options.host) === 6 ? ["::", "0.0.0.0"] : ["0.0.0.0"]
    return LocalHosts.of(options.host, options.see) ?? [...open.keys()]
  }

  const bind = Effect.fnUntraced(function*(host: string) {
    const number = options.numbers.take()
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const socket = yield* options.open({ host, port, family: familyOf(host) }, number).pipe(
      Scope.extend(scope),
      Effect.onError(() => {
        options.numbers.free(number)
        return Scope.close(scope, Exit.void)
      })
    )
    port = socket.address().port
    open.set(host, { number, host, socket, scope, goneAt: null })
    failing.delete(host)
  })

  const onFailed = (error: UdpOpenError, now: number) => {
    const before = failing.get(error.host)
    const gapMs = before === undefined ? RETRY_MS : Math.min(MAX_RETRY_MS, before.gapMs * 2)
    failing.set(error.host, { code: error.code, gapMs, nextAt: now + gapMs })
    return before?.code === error.code ? Effect.void : options.onSkipped(error)
  }

  /** Binds addresses that have no socket yet and are due. Returns the errors of this look. */
  const bindNew = Effect.fnUntraced(function*(hosts: ReadonlyArray<string>, now: number) {
    const errors: Array<UdpOpenError> = []
    for (const host of hosts) {
      if (open.has(host) || now < (failing.get(host)?.nextAt ?? -Infinity)) continue
      yield* Effect.catchAll(bind(host), (error) => {
        errors.push(error)
        return Effect.void
      })
    }
    return errors
  })

  const dropGone = Effect.fnUntraced(function*(hosts: ReadonlyArray<string>, now: number) {
    let dropped = 0
    for (const host of failing.keys()) if (!hosts.includes(host)) failing.delete(host)
    for (const it of open.values()) {
      if (hosts.includes(it.host)) it.goneAt = null
      else if (it.goneAt === null) it.goneAt = now
      else if (now - it.goneAt >= KEEP_MS) {
        open.delete(it.host)
        options.onDropped(it.number)
        options.numbers.free(it.number)
        yield* Scope.close(it.scope, Exit.void)
        dropped++
      }
    }
    return dropped
  })

  const look = Effect.suspend(() => {
    const now = options.now()
    const hosts = wanted()
    const before = open.size
    return Effect.gen(function*() {
      const errors = yield* bindNew(hosts, now)
      const opened = open.size - before
      const dropped = yield* dropGone(hosts, now)
      return { changed: opened > 0 || dropped > 0, errors }
    })
  }).pipe(Effect.uninterruptible)

  const { errors } = yield* look
  const fatal = open.size > 0 || !options.required
    ? undefined
    : errors.find(({ code, host }) => {
      if (code === "EADDRINUSE" || code === "EACCES") return true
      const isAbsent = code === "EADDRNOTAVAIL" && options.port !== 0
      return host === options.host && !blind && !isAbsent
    })
  if (fatal !== undefined) return yield* fatal
  yield* Effect.forEach(errors, (error) => onFailed(error, options.now()), { discard: true })
  return {
    port: () => port,
    held: () => [...open.values()],
    skipped: () => [...failing].map(([host, { code }]) => ({ host, code })),
    blind,
    look: Effect.flatMap(look, ({ changed, errors }) => {
      if (changed) options.onChange()
      return Effect.forEach(errors, (error) => onFailed(error, options.now()), { discard: true })
    })
  } satisfies ListenSockets
})
