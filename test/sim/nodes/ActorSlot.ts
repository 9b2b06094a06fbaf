/** One actor of a simulated node, without ports and threads: it can die at any time, and its successor takes its place. */
import { Headers } from "@effect/platform"
import type { Rpc, RpcGroup } from "@effect/rpc"
import {
  type Context,
  Deferred,
  type Duration,
  Effect,
  Exit,
  Layer,
  Option,
  Scope,
  Stream,
  SubscriptionRef
} from "effect"
import type { ActorAddress } from "../../../src/actors/runtime/actor/ActorAddress.ts"
import { type ActorRef, ActorUnavailable, DEFAULT_DEADLINE } from "../../../src/actors/runtime/actor/ActorRef.ts"
import { Peers } from "../../../src/actors/runtime/actor/Peers.ts"

interface Up {
  readonly client: unknown
  readonly incarnation: number
  /** Fails when it dies. */
  readonly died: Deferred.Deferred<never, ActorUnavailable>
}

export interface ActorSlot {
  readonly name: string
  readonly ref: unknown
  /** Also after `kill`. */
  readonly start: Effect.Effect<void>
  /** Whoever waits for an answer is told. */
  readonly kill: Effect.Effect<void>
}

/** `layer` is built anew for each life. */
export const make = <Rpcs extends Rpc.Any>(
  address: ActorAddress<Rpcs>,
  group: RpcGroup.RpcGroup<Rpcs>,
  layer: Layer.Layer<Rpc.ToHandler<Rpcs>>
): Effect.Effect<ActorSlot> =>
  Effect.gen(function*() {
    const { name } = address
    const state = yield* SubscriptionRef.make<Up | null>(null)
    let scope: Scope.CloseableScope | null = null
    let lives = 0
    const start = Effect.gen(function*() {
      scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(layer, scope)
      const client = clientOf(group, context)
      const died = yield* Deferred.make<never, ActorUnavailable>()
      yield* SubscriptionRef.set(state, { client, incarnation: ++lives, died })
    })
    const kill = Effect.gen(function*() {
      const before = scope
      scope = null
      const up = yield* SubscriptionRef.getAndSet(state, null)
      if (up !== null) yield* Deferred.fail(up.died, new ActorUnavailable({ actor: name, reason: "died" }))
      yield* Effect.yieldNow()
      if (before !== null) yield* Scope.close(before, Exit.void)
    })
    const ups = Stream.filter(state.changes, (it) => it !== null)
    const ref = {
      name,
      ask: (
        call: (client: unknown) => Effect.Effect<unknown, unknown>,
        options?: { deadline?: Duration.DurationInput }
      ) =>
        Effect.gen(function*() {
          const up = (yield* SubscriptionRef.get(state)) ?? (yield* Effect.map(Stream.runHead(ups), Option.getOrThrow))
          return yield* Effect.raceFirst(call(up.client), Deferred.await(up.died))
        }).pipe(Effect.timeoutFail({
          duration: options?.deadline ?? DEFAULT_DEADLINE,
          onTimeout: () => new ActorUnavailable({ actor: name, reason: "timed_out" })
        })),
      subscribe: (call: (client: unknown) => Stream.Stream<unknown, unknown>) =>
        Stream.flatMap(state.changes, (up) => (up === null ? Stream.never : call(up.client)), { switch: true }),
      incarnations: Stream.map(ups, ({ incarnation }) => incarnation)
    }
    return { name, ref, start, kill }
  })

/** Calls the handlers themselves, without the protocol between, which has a suite of its own. */
const clientOf = <Rpcs extends Rpc.Any>(
  group: RpcGroup.RpcGroup<Rpcs>,
  context: Context.Context<Rpc.ToHandler<Rpcs>>
) => {
  const client: Record<string, (payload: unknown) => unknown> = {}
  for (const rpc of group.requests.values()) {
    const entry = context.unsafeMap.get(rpc.key) as {
      readonly handler: (payload: unknown, options: object) => Effect.Effect<unknown> | Stream.Stream<unknown>
      readonly context: Context.Context<never>
    }
    client[rpc._tag] = (payload) => {
      const answer = entry.handler(payload ?? {}, { clientId: 0, headers: Headers.empty })
      return Effect.isEffect(answer)
        ? Effect.provide(answer, entry.context)
        : Stream.provideSomeContext(answer, entry.context)
    }
  }
  return client
}

/** A node's actors as they find each other; `slots` may still grow. */
export const peers = (slots: ReadonlyMap<string, ActorSlot>): Layer.Layer<Peers> =>
  Layer.succeed(
    Peers,
    Peers.of({
      ref: <Rpcs extends Rpc.Any>(address: ActorAddress<Rpcs>) => {
        const slot = slots.get(address.name)
        if (slot === undefined) throw new Error(`no actor ${address.name}`)
        return slot.ref as ActorRef<Rpcs>
      }
    })
  )
