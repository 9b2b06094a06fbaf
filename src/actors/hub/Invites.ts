/**
 * Invites connectors to one session, one after another, until one accepts. A connector that is dead
 * or frozen does not answer, so the next one is invited before the first invitation is over.
 */
import { Deferred, Duration, Effect, Fiber } from "effect"
import { nowMs } from "../../session/MonotonicClock.ts"
import type { Link, Member } from "./Board.ts"

/**
 * How long a connector may take to answer an invitation. A connector that is up answers within a
 * round trip.
 */
const INVITE_DEADLINE = Duration.seconds(2.5)
/**
 * Delay before the next connector is invited as well, if one has not answered. The answer of either
 * is taken.
 */
const NEXT_AFTER = Duration.seconds(1)
/** Most connectors that one dial waits for in vain. Nobody waits longer for an answer. */
const MAX_SILENT = 3
/**
 * Most connectors that are invited for one dial. Those that decline cost only a round trip, and
 * most of a network may be draining.
 */
const MAX_INVITES = 16
/** Options of {@link first}. */
export interface Options<A, R> {
  /** Links of the connectors, the best first. At most `MAX_INVITES` of them are invited. */
  readonly links: ReadonlyArray<Link>
  /** Called with a connector that has not answered when the next one is invited, and the time. */
  readonly onSilent: (link: Link, now: number) => void
  /** Invites a connector and waits for its answer. Fails with its reason to decline. */
  readonly invite: (connector: Member) => Effect.Effect<A, string, R>
}

/**
 * Returns the answer of the first connector that accepts. If none does, fails with the reason that
 * came last. Invitations that are still open then are given up.
 */
export const first = Effect.fnUntraced(function*<A, R>({ invite, links, onSilent }: Options<A, R>) {
  const accepted = yield* Deferred.make<A>()
  const open: Array<Effect.Effect<unknown>> = []
  let reason = "none is connected"
  let silences = 0
  for (const link of links.slice(0, MAX_INVITES)) {
    const answer = yield* invite(link.member).pipe(
      Effect.timeoutFail({ duration: INVITE_DEADLINE, onTimeout: () => "no answer in time" }),
      Effect.matchEffect({
        onFailure: (why) => Effect.sync(() => void (reason = `${link.member.shown}: ${why}`)),
        onSuccess: (value) => Deferred.succeed(accepted, value)
      }),
      Effect.forkScoped
    )
    open.push(Fiber.join(answer))
    const silent = Effect.map(Effect.delay(nowMs, NEXT_AFTER), (now) => {
      onSilent(link, now)
      silences++
    })
    yield* Effect.raceAll([Deferred.await(accepted), Fiber.join(answer), silent])
    if (yield* Deferred.isDone(accepted)) return yield* Deferred.await(accepted)
    if (silences === MAX_SILENT) break
  }
  yield* Effect.raceFirst(Deferred.await(accepted), Effect.all(open))
  return yield* (yield* Deferred.isDone(accepted)) ? Deferred.await(accepted) : Effect.fail(reason)
}, Effect.scoped)
