/**
 * The link that carries relayed packets while UDP does not: a TCP connection or an HTTP/3 stream to
 * the home relay, and the binding over it. There is at most one at a time. After its end
 * this part says how long to wait before the next one is opened.
 */
import { Duration, Effect, Random } from "effect"
import { HURRY_MS } from "../../protocol/relay/RelayBinding.ts"
import { type BindingLoop, NO_WAYS_OUT, type WaysOut } from "./BindingLoop.ts"
import type { LegKind } from "./RelayRpcs.ts"

/** Delay before a link is tried again that failed or ended early. */
const RETRY_LINK = Duration.seconds(3)
/**
 * Longest such delay in the first {@link HURRY_MS} after the node lost its last leg, if sessions
 * are open. The delay is random, from half of this on, which spreads the nodes of a relay that
 * restarts.
 */
const HURRY_LINK_MS = 600
/**
 * How long a bound link must have been open so that it is replaced at once when it ends. It worked,
 * so the other end has probably been stopped.
 */
const SERVED_MS = 500

/** The data plane's part of a link: the connection itself. */
export interface Connection {
  /** Opens the connection and returns its kind. Takes up to ten seconds. */
  readonly open: Effect.Effect<LegKind, { readonly message: string }>
  /** Waits until the open connection ends. */
  readonly ended: Effect.Effect<void, { readonly message: string }>
  readonly close: Effect.Effect<void>
}

/** Options of {@link make}. */
export interface Options {
  readonly connection: Connection
  /** Makes the binding of a new link. */
  readonly newBinding: (ways: WaysOut) => BindingLoop
  /** Runs an effect in a fiber of its own, which ends with the actor. */
  readonly fork: (effect: Effect.Effect<void>) => Effect.Effect<void>
  /** Called from that fiber when the link of this binding is open. */
  readonly onOpened: (of: BindingLoop, kind: LegKind) => Effect.Effect<void>
  /** Called from that fiber when the link of this binding has ended or could not be opened. */
  readonly onEnded: (of: BindingLoop) => Effect.Effect<void>
}

/** A node's state when its link ended, which decides how soon the next one is tried. */
export interface Situation {
  readonly hasSessions: boolean
  /** When the node lost its last leg, in ms (monotonic). */
  readonly lostAt: number
}

/** Makes the leg, which is closed. */
export const make = ({ connection, fork, newBinding, onEnded, onOpened }: Options) => {
  /** Binding over the link while it is open or being opened, otherwise `null`. */
  let binding: BindingLoop | null = null
  let kind: LegKind | null = null
  /** When the link was opened, in ms (monotonic). */
  let openedAt = Infinity
  /** Whether the last link was bound and open for a time before it ended. */
  let hasServed = false
  let ways = NO_WAYS_OUT
  /** Why the last try to open a link failed. `null` if it did not. */
  let problem: string | null = null

  const run = (of: BindingLoop) =>
    Effect.gen(function*() {
      const opened = yield* connection.open
      problem = null
      yield* onOpened(of, opened)
      yield* connection.ended
    }).pipe(
      Effect.catchAll(({ message }) => {
        const isKnown = problem === message
        problem = message
        const text = `no packet link to the relay: ${message}`
        return isKnown ? Effect.logDebug(text) : Effect.logWarning(text)
      }),
      Effect.zipRight(Effect.suspend(() => onEnded(of)))
    )

  /** Forgets the link without closing it, because its data plane is gone. */
  const forget = () => {
    binding = null
    kind = null
  }

  return {
    /** Binding over the link. `null` if no link is open or being opened. */
    get binding() {
      return binding
    },
    /** Kind of the link that is bound. `null` if none is. */
    get bound(): LegKind | null {
      return binding?.phase === "bound" ? kind : null
    },
    forget,
    /** Opens a link, unless there is one already. */
    open: Effect.fnUntraced(function*(now: number) {
      if (binding !== null) return
      binding = newBinding(ways)
      yield* binding.start(now)
      yield* fork(run(binding))
    }),
    close: Effect.suspend(() => {
      forget()
      return connection.close
    }),
    /** Uses these for the bindings of later links. */
    onWaysOut: (next: WaysOut) => void (ways = next),
    /** Notes that a link is open. Returns `false` if it is an earlier link than the present one. */
    isOpened: (of: BindingLoop, openedKind: LegKind, now: number): boolean => {
      if (of !== binding) return false
      kind = openedKind
      openedAt = now
      return true
    },
    /**
     * Notes that a link has ended. Returns `false` if it is an earlier link than the present one.
     */
    isEnded: (of: BindingLoop, now: number): boolean => {
      if (of !== binding) return false
      hasServed = of.phase === "bound" && now - openedAt >= SERVED_MS
      of.onLinkClosed()
      binding = null
      return true
    },
    /** How long to wait, after the link ended, before the next one is opened. */
    retryDelay: ({ hasSessions, lostAt }: Situation, now: number): Effect.Effect<Duration.Duration> => {
      if (hasServed) return Effect.succeed(Duration.zero)
      if (!hasSessions || now - lostAt >= HURRY_MS) return Effect.succeed(RETRY_LINK)
      return Effect.map(Random.nextIntBetween(HURRY_LINK_MS / 2, HURRY_LINK_MS), Duration.millis)
    }
  } as const
}
