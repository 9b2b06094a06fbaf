/**
 * Defines what an actor consists of. The runtime decides on which thread an actor runs, and
 * restarts it when it fails.
 */
import { Rpc, RpcServer } from "@effect/rpc"
import { Cause, Context, Effect, Layer, ParseResult, Schema, type Scope, Stream } from "effect"
import * as MessagePortProtocol from "../port/MessagePortProtocol.ts"
import type { Port } from "../port/Port.ts"
import type { ActorAddress, Any as AnyAddress } from "./ActorAddress.ts"
import { ACTOR_DEFECT } from "./ActorRef.ts"
import type { Peers } from "./Peers.ts"
import type { Self } from "./Self.ts"

/**
 * Services that the runtime gives to an actor's layer. The layer provides everything else itself.
 */
export type Environment = Peers | Self

/** Definition of an actor, for {@link make}. */
export interface Options<Rpcs extends Rpc.Any, Config, Encoded, E> {
  /** Address by which other actors call this one. */
  readonly address: ActorAddress<Rpcs>
  /**
   * Schema of the actor's config. Its encoded form must survive a structured clone, because it
   * crosses threads.
   */
  readonly config: Schema.Schema<Config, Encoded>
  /** Actors that this actor calls. `Peers.ref` accepts only these. Cycles are allowed. */
  readonly uses: ReadonlyArray<AnyAddress>
  /**
   * Builds one incarnation, which is up once the layer is built. The layer may call peers, which
   * may still be starting at that time.
   */
  readonly layer: (config: Config) => Layer.Layer<Rpc.ToHandler<Rpcs>, E, Environment>
}

/** An actor as the runtime sees it. */
export interface Actor {
  readonly address: AnyAddress
  readonly uses: ReadonlyArray<AnyAddress>
  /** Starts one incarnation, which lives until the scope ends. */
  readonly start: (config: unknown) => Effect.Effect<Incarnation, NotStarted, Environment | Scope.Scope>
}

/** One running incarnation of an actor. */
export interface Incarnation {
  /**
   * Serves one caller until the scope ends or the port closes. `closed` is done when the port is
   * closed.
   */
  readonly serve: (port: Port) => Effect.Effect<{ readonly closed: Effect.Effect<void> }, never, Scope.Scope>
}

/** Error when an actor could not be started. `message` says what to look at. */
export class NotStarted extends Schema.TaggedError<NotStarted>()("NotStarted", {
  actor: Schema.String,
  reason: Schema.Literal("unknown_actor", "import", "uses", "config", "layer", "timed_out", "thread"),
  message: Schema.String
}) {}

/** Makes an actor out of its address, config schema, used actors and layer. */
export const make = <Rpcs extends Rpc.Any, Config, Encoded, E>(
  options: Options<Rpcs, Config, Encoded, E>
): Actor => {
  const actor = options.address.name
  const start = Effect.fnUntraced(function*(encoded: unknown) {
    const config = yield* Schema.decodeUnknown(options.config)(encoded).pipe(
      Effect.mapError((error) =>
        new NotStarted({ actor, reason: "config", message: ParseResult.TreeFormatter.formatErrorSync(error) })
      )
    )
    const scope = yield* Effect.scope
    const handlers = yield* Layer.buildWithScope(Layer.suspend(() => options.layer(config)), scope).pipe(
      Effect.catchAllCause((cause) =>
        Cause.isInterruptedOnly(cause)
          ? Effect.interrupt
          : Effect.fail(new NotStarted({ actor, reason: "layer", message: describe(cause) }))
      )
    )
    return { serve: (port) => serve(options.address, handlers, port) } satisfies Incarnation
  })
  return { address: options.address, uses: options.uses, start }
}

/**
 * Describes why a layer failed. For expected failures it gives only their messages, because their
 * stacks say nothing more. For a defect it gives the stack, because a defect is a bug.
 */
const describe = (cause: Cause.Cause<unknown>): string => {
  const failures = [...Cause.failures(cause)]
  const isExpected = !Cause.isDie(cause) &&
    failures.every((failure) => failure instanceof Error && failure.message !== "")
  return isExpected ? failures.map((failure) => (failure as Error).message).join("; ") : Cause.pretty(cause)
}

const serve = Effect.fnUntraced(function*<Rpcs extends Rpc.Any>(
  { name, rpcs }: ActorAddress<Rpcs>,
  handlers: Context.Context<Rpc.ToHandler<Rpcs>>,
  port: Port
) {
  const connection = yield* MessagePortProtocol.makeServer(port)
  // Actors use no RPC middleware and no services in schemas. The compiler cannot see that for an
  // unknown group.
  const services = guard(name, handlers) as Context.Context<
    Rpc.ToHandler<Rpcs> | Rpc.Middleware<Rpcs> | Rpc.Context<Rpcs>
  >
  yield* RpcServer.make(rpcs, { concurrency: "unbounded", disableFatalDefects: true, spanPrefix: name }).pipe(
    Effect.provideService(RpcServer.Protocol, connection.protocol),
    Effect.provide(services),
    Effect.forkScoped
  )
  // Added last, so it runs first: the caller sees a closed port, not interrupted calls.
  yield* Effect.addFinalizer(() => connection.hangUp)
  return { closed: connection.closed }
})

/**
 * Wraps the handlers so that a defect is logged here and ends only the call in which it happened.
 * At the caller, `ActorRef` turns it into `ActorUnavailable`.
 */
const guard = <Handlers>(actor: string, handlers: Context.Context<Handlers>): Context.Context<Handlers> => {
  const guarded = new Map<string, Rpc.Handler<string>>()
  for (const [key, entry] of handlers.unsafeMap as ReadonlyMap<string, Rpc.Handler<string>>) {
    guarded.set(key, { ...entry, handler: (request, options) => guardResult(actor, entry.handler(request, options)) })
  }
  return Context.unsafeMake(guarded)
}

type Result = ReturnType<Rpc.Handler<string>["handler"]>

const guardResult = (actor: string, result: Result): Result => {
  if (Rpc.isWrapper(result)) {
    return { ...(result as object), value: guardResult(actor, result.value as Result) } as never
  }
  if (Effect.isEffect(result)) return Effect.catchAllCause(result, (cause) => refused(actor, cause))
  return Stream.catchAllCause(result, (cause) => Stream.fromEffect(refused(actor, cause)))
}

const refused = <E>(actor: string, cause: Cause.Cause<E>): Effect.Effect<never, E> => {
  if (!Cause.isDie(cause)) return Effect.failCause(cause)
  const error = new Error(`a call of actor ${actor} failed: ${String(Cause.squash(cause))}`)
  error.name = ACTOR_DEFECT
  return Effect.zipRight(
    Effect.logError("a handler died; this is a bug", cause).pipe(Effect.annotateLogs({ actor })),
    Effect.die(error)
  )
}
