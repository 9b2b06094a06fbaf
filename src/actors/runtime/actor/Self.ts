/** The means by which an actor tells the runtime about itself. */
import { type Cause, Context, Effect, Layer, Option, type Scope } from "effect"
import type * as Metrics from "../../../services/telemetry/Metrics.ts"

/** The actor's own incarnation, as the runtime knows it. */
export class Self extends Context.Tag("sallyport/actors/Self")<Self, {
  readonly name: string
  /** Number of this incarnation in this process, from 1. */
  readonly incarnation: number
  /** Ends this incarnation and returns at once. The supervisor starts the next incarnation. */
  readonly die: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
  /** Shows a queue's depth in the supervisor's status while the scope lives. */
  readonly watchQueue: (queue: Queue) => Effect.Effect<void, never, Scope.Scope>
  /**
   * Adds the metrics of `source` to those of this process while the scope lives. Counts are kept
   * after that.
   */
  readonly exposeMetrics: (source: Metrics.Source) => Effect.Effect<void, never, Scope.Scope>
}>() {}

/** A queue that the status shows. */
export interface Queue {
  readonly name: string
  readonly capacity: number
  readonly depth: () => number
}

/**
 * Runs, in the scope, an effect that the actor cannot live without. When the effect ends other than
 * by interruption, the actor dies.
 */
export const fork = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<void, never, R | Scope.Scope | Self> =>
  Effect.flatMap(Self, (self) =>
    effect.pipe(
      Effect.zipRight(Effect.dieMessage(`a loop of actor ${self.name} ended`)),
      Effect.tapErrorCause((cause) => self.die(cause)),
      Effect.withUnhandledErrorLogLevel(Option.none()),
      Effect.forkScoped,
      Effect.asVoid
    ))

/** Layer for tests of one actor without the runtime. A death is only logged. */
export const layerTest = (name = "test"): Layer.Layer<Self> =>
  Layer.succeed(Self, {
    name,
    incarnation: 1,
    die: (cause) => Effect.logError(`actor ${name} died`, cause),
    watchQueue: () => Effect.void,
    exposeMetrics: () => Effect.void
  })
