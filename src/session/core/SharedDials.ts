/**
 * Dials that callers share. Callers that want the same target while it is being dialled wait for
 * one dial. A target that a session carries already is not dialled.
 */
import { type Cause, Deferred, Effect, Exit } from "effect"
import type { Target } from "../../protocol/flow/FlowWire.ts"

/** Options of {@link make}. */
export interface Options<S, E> {
  /** Finds a session that may carry a flow to the target at once. `undefined` if there is none. */
  readonly find: (target: Target) => S | undefined
  /** Dials a target. It runs to its end, also when the caller that began it is gone. */
  readonly dial: (target: Target) => Effect.Effect<S, E>
  /** Error of all callers when the dial was interrupted or had a defect. */
  readonly broken: (cause: Cause.Cause<E>) => E
}

/** Makes a function that returns a session for a target. */
export const make = <S, E>({ broken, dial, find }: Options<S, E>) => {
  const dialling = new Map<string, Deferred.Deferred<S, E>>()
  const begin = Effect.fnUntraced(function*(key: string, target: Target) {
    const result = yield* Deferred.make<S, E>()
    dialling.set(key, result)
    const dialled = Effect.onExit(dial(target), (exit) => {
      dialling.delete(key)
      const isBroken = Exit.isFailure(exit) && exit.cause._tag !== "Fail"
      return Deferred.done(result, isBroken ? Exit.fail(broken(exit.cause)) : exit)
    })
    // The first caller may end before the others that wait for the dial.
    yield* Effect.forkDaemon(dialled)
    return yield* Deferred.await(result)
  })
  return (target: Target): Effect.Effect<S, E> =>
    Effect.suspend(() => {
      const ready = find(target)
      if (ready !== undefined) return Effect.succeed(ready)
      const key = `${target.kind} ${target.host.toLowerCase()}:${target.port}`
      const under = dialling.get(key)
      return under === undefined ? begin(key, target) : Deferred.await(under)
    })
}
