/**
 * The caller's end of one edge between two actors. It outlives the incarnations of the called
 * actor, each of which brings a new port.
 */
import { type Rpc, RpcClient } from "@effect/rpc"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import {
  Cause,
  Duration,
  Effect,
  ExecutionStrategy,
  Exit,
  Option,
  Schema,
  Scope,
  Stream,
  SubscriptionRef
} from "effect"
import * as MessagePortProtocol from "../port/MessagePortProtocol.ts"
import type { Port } from "../port/Port.ts"
import type { ActorAddress } from "./ActorAddress.ts"

/** RPC client of an actor. Each call can also fail because the port to the actor closed. */
export type Client<Rpcs extends Rpc.Any> = RpcClient.RpcClient<Rpcs, RpcClientError>

/**
 * Error when an actor did not answer. Reasons:
 * - `starting`: the actor did not start within the deadline. Ask again later.
 * - `died`: the actor, its thread or this one call failed. The call may have taken effect or not.
 * - `timed_out`: the actor is running but did not answer within the deadline.
 * - `gave_up`: the supervisor no longer restarts the actor. Do not ask again.
 */
export class ActorUnavailable extends Schema.TaggedError<ActorUnavailable>()("ActorUnavailable", {
  actor: Schema.String,
  reason: Schema.Literal("starting", "died", "timed_out", "gave_up")
}) {
  override get message(): string {
    return `actor ${this.actor} is unavailable: ${advice[this.reason]}`
  }
}

const advice = {
  starting: "it is still starting; ask again, and see `sallyport status` if that lasts",
  died: "it failed during the call and is being restarted; ask again if repeating the call does no harm",
  timed_out: "no answer within the deadline; ask again with a longer one, or see `sallyport status`",
  gave_up: "it failed too often and is not restarted; see the log for its last error and restart the process"
} as const

/** How long an ask waits for its answer unless the caller gives another deadline. */
export const DEFAULT_DEADLINE = Duration.seconds(5)

/** Calls one actor, across its restarts. */
export interface ActorRef<Rpcs extends Rpc.Any> {
  readonly name: string
  /**
   * Calls the actor. If it is being restarted, the call waits until it is up again, at most until
   * the deadline (`DEFAULT_DEADLINE` unless given). Interrupting the ask interrupts the handler.
   * The call is sent once: a call that failed is never repeated automatically.
   */
  readonly ask: <A, E, R>(
    call: (client: Client<Rpcs>) => Effect.Effect<A, E, R>,
    options?: { readonly deadline?: Duration.DurationInput | undefined }
  ) => Effect.Effect<A, Exclude<E, RpcClientError> | ActorUnavailable, R>
  /**
   * Subscribes to a stream of the actor, and again after each restart of the actor. The stream ends
   * when the actor ends it. It fails with the stream's own error, or with `gave_up`. Elements that
   * are emitted during a restart are lost, so such streams begin with a snapshot.
   */
  readonly subscribe: <A, E, R>(
    call: (client: Client<Rpcs>) => Stream.Stream<A, E, R>
  ) => Stream.Stream<A, Exclude<E, RpcClientError> | ActorUnavailable, R>
  /**
   * Emits the number of the actor's incarnation when it is up, and again after each restart. A slow
   * reader sees only the latest number.
   */
  readonly incarnations: Stream.Stream<number>
}

/** The runtime's end of an `ActorRef`. It gives the ref the port of each new incarnation. */
export interface Link {
  /**
   * Uses `port` for later calls. A port of an incarnation that is older than the present one is
   * closed instead.
   */
  readonly connect: (port: Port, incarnation: number) => Effect.Effect<void>
  /** Makes asks fail at once from now on. A later `connect` undoes it. */
  readonly giveUp: Effect.Effect<void>
}

type Up<Rpcs extends Rpc.Any> = {
  readonly _tag: "Up"
  readonly incarnation: number
  readonly client: Client<Rpcs>
  readonly connection: MessagePortProtocol.ClientConnection
  readonly close: Effect.Effect<void>
  /**
   * Calls that use `client` now. The client is released when its port is closed and the last of
   * them is done, so that no call sees it shut down.
   */
  users: number
}
type State<Rpcs extends Rpc.Any> = Up<Rpcs> | { readonly _tag: "Waiting" } | { readonly _tag: "GaveUp" }

/**
 * Makes a ref and the runtime's link to it. Both live until the scope ends, which closes the port.
 */
export const make = Effect.fnUntraced(function*<Rpcs extends Rpc.Any>(address: ActorAddress<Rpcs>) {
  const owner = yield* Effect.scope
  const state = yield* SubscriptionRef.make<State<Rpcs>>({ _tag: "Waiting" })

  const release = (up: Up<Rpcs>) =>
    Effect.suspend(() => up.users === 0 && !up.connection.isOpen() ? up.close : Effect.void)
  const drop = (up: Up<Rpcs>) =>
    SubscriptionRef.update(state, (now) => (now === up ? { _tag: "Waiting" } as const : now)).pipe(
      Effect.zipRight(release(up))
    )
  const connect = Effect.fnUntraced(function*(port: Port, incarnation: number) {
    const now = yield* SubscriptionRef.get(state)
    if (now._tag === "Up" && now.incarnation > incarnation) return port.close()
    const scope = yield* Scope.fork(owner, ExecutionStrategy.sequential)
    const { client, connection } = yield* Scope.extend(makeClient(address, port), scope)
    const up: Up<Rpcs> = { _tag: "Up", incarnation, client, connection, close: Scope.close(scope, Exit.void), users: 0 }
    const before = yield* SubscriptionRef.getAndSet(state, up)
    yield* Effect.forkIn(Effect.zipRight(connection.closed, drop(up)), owner)
    if (before._tag === "Up") yield* before.connection.hangUp
  })
  const giveUp = Effect.flatMap(
    SubscriptionRef.getAndSet(state, { _tag: "GaveUp" }),
    (before) => (before._tag === "Up" ? before.connection.hangUp : Effect.void)
  )
  return { ref: makeRef(address.name, state, release), link: { connect, giveUp } satisfies Link }
})

const makeClient = Effect.fnUntraced(function*<Rpcs extends Rpc.Any>(address: ActorAddress<Rpcs>, port: Port) {
  const connection = yield* MessagePortProtocol.makeClient(port)
  // Actors use no RPC middleware, so the client needs none. The compiler cannot see that for an
  // unknown group.
  const making = RpcClient.make(address.rpcs, { spanPrefix: `ask.${address.name}` }) as Effect.Effect<
    Client<Rpcs>,
    never,
    RpcClient.Protocol | Scope.Scope
  >
  const client = yield* Effect.provideService(making, RpcClient.Protocol, connection.protocol)
  // Added last, so it runs first: calls in flight fail instead of being interrupted.
  yield* Effect.addFinalizer(() => connection.hangUp)
  return { client, connection }
})

const makeRef = <Rpcs extends Rpc.Any>(
  actor: string,
  state: SubscriptionRef.SubscriptionRef<State<Rpcs>>,
  release: (up: Up<Rpcs>) => Effect.Effect<void>
): ActorRef<Rpcs> => {
  const unavailable = (reason: ActorUnavailable["reason"]) => new ActorUnavailable({ actor, reason })
  const ups = Stream.filterMapEffect(state.changes, (now) => {
    if (now._tag === "GaveUp") return Option.some(Effect.fail(unavailable("gave_up")))
    return now._tag === "Up" && now.connection.isOpen() ? Option.some(Effect.succeed(now)) : Option.none()
  })
  const awaitUp = Effect.flatMap(SubscriptionRef.get(state), (now) =>
    now._tag === "Up" && now.connection.isOpen()
      ? Effect.succeed(now)
      : Effect.flatMap(Stream.runHead(ups), Option.match({ onNone: () => Effect.never, onSome: Effect.succeed })))
  const hold = (up: Up<Rpcs>) => Effect.sync(() => ++up.users)
  const letGo = (up: Up<Rpcs>) =>
    Effect.suspend(() => {
      up.users--
      return release(up)
    })

  const ask: ActorRef<Rpcs>["ask"] = (call, options) =>
    Effect.suspend(() => {
      let late: "starting" | "timed_out" = "starting"
      return awaitUp.pipe(
        Effect.flatMap((up) => {
          late = "timed_out"
          return Effect.acquireUseRelease(hold(up), () => call(up.client), () => letGo(up))
        }),
        Effect.mapErrorCause((cause) => (brokeDown(cause) ? Cause.fail(unavailable("died")) : withoutRpcError(cause))),
        // The deadline must be able to interrupt this, even in a finalizer. It runs in a fiber of
        // its own.
        Effect.interruptible,
        Effect.timeoutFail({ duration: options?.deadline ?? DEFAULT_DEADLINE, onTimeout: () => unavailable(late) })
      )
    })

  const subscribe: ActorRef<Rpcs>["subscribe"] = (call) =>
    Stream.suspend(() => {
      let ended = false
      // Failures in a row on ports that stayed open. Where the port closed, waiting for the next
      // incarnation is delay enough.
      let failures = 0
      const next = Effect.suspend(() => {
        if (ended) return Effect.fail(Option.none())
        const pause = failures === 0 ? Effect.void : Effect.sleep(Math.min(25 * 2 ** (failures - 1), 2000))
        return Effect.mapError(Effect.zipRight(pause, awaitUp), Option.some)
      })
      const listen = (up: Up<Rpcs>) =>
        Stream.acquireRelease(hold(up), () => letGo(up)).pipe(
          Stream.flatMap(() => call(up.client)),
          Stream.mapChunks((chunk) => {
            failures = 0
            return chunk
          }),
          Stream.concat(Stream.execute(Effect.sync(() => void (ended = true)))),
          Stream.catchAllCause((cause) => {
            if (!brokeDown(cause)) return Stream.failCause(withoutRpcError(cause))
            return Stream.execute(Effect.sync(() => void (failures = up.connection.isOpen() ? failures + 1 : 0)))
          })
        )
      return Stream.flatMap(Stream.repeatEffectOption(next), listen)
    })

  const incarnations = ups.pipe(
    Stream.map((up) => up.incarnation),
    Stream.changes,
    Stream.catchAll(() => Stream.empty)
  )
  return { name: actor, ask, subscribe, incarnations }
}

/**
 * Name of the error by which a defect of the called actor arrives at its callers. Errors cross
 * threads as a name and a message.
 */
export const ACTOR_DEFECT = "ActorDefect"

/**
 * Whether the called actor is at fault: its port closed, its handler died, or the call was
 * interrupted there. An interruption on this side does not run the handler that asks this.
 */
const brokeDown = (cause: Cause.Cause<unknown>): boolean => {
  if (Cause.isInterruptedOnly(cause)) return true
  const failure = Cause.failureOption(cause)
  if (Option.isSome(failure)) return failure.value instanceof RpcClientError
  const defect = Option.getOrUndefined(Cause.dieOption(cause))
  return defect instanceof Error && defect.name === ACTOR_DEFECT
}

/**
 * Drops `RpcClientError` from the type. Only for causes for which `brokeDown` is false: they
 * contain no such error.
 */
const withoutRpcError = <E>(cause: Cause.Cause<E>) => cause as Cause.Cause<Exclude<E, RpcClientError>>
