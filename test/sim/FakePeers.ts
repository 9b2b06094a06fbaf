/** Peers of an actor under test: each is a set of handlers in the same thread, without ports. */
import { type Rpc, type RpcGroup, RpcTest } from "@effect/rpc"
import { Effect, Layer, type Scope, Stream } from "effect"
import type { ActorAddress } from "../../src/actors/runtime/actor/ActorAddress.ts"
import type { ActorRef, Client } from "../../src/actors/runtime/actor/ActorRef.ts"
import { Peers } from "../../src/actors/runtime/actor/Peers.ts"

/** A peer that serves some of its calls; another one is a defect. `incarnations` are those that the test says. */
export const make = <Rpcs extends Rpc.Any, Part extends Rpc.Any>(
  address: ActorAddress<Rpcs>,
  part: RpcGroup.RpcGroup<Part>,
  handlers: Layer.Layer<Rpc.ToHandler<Part>>,
  incarnations: Stream.Stream<number> = Stream.make(1)
) => ({
  name: address.name,
  ref: Effect.gen(function*() {
    // The test client has no middleware and no services in its schemas; the compiler can't see that for an unknown group.
    const making = RpcTest.makeClient(part) as unknown as Effect.Effect<Client<Rpcs>, never, Rpc.ToHandler<Part>>
    const client = yield* Effect.provide(making, yield* Layer.build(handlers))
    const ref = {
      name: address.name,
      ask: (call: (client: Client<Rpcs>) => Effect.Effect<unknown>) => call(client),
      subscribe: (call: (client: Client<Rpcs>) => Stream.Stream<unknown>) => call(client),
      incarnations
    }
    return ref as unknown as ActorRef<Rpcs>
  })
})

type AnyFake = { readonly name: string; readonly ref: Effect.Effect<unknown, never, Scope.Scope> }

export const layer = (...fakes: ReadonlyArray<AnyFake>): Layer.Layer<Peers> =>
  Layer.scoped(
    Peers,
    Effect.gen(function*() {
      const refs = new Map<string, unknown>()
      for (const fake of fakes) refs.set(fake.name, yield* fake.ref)
      return Peers.of({
        ref: <Rpcs extends Rpc.Any>(address: ActorAddress<Rpcs>) => {
          const ref = refs.get(address.name)
          if (ref === undefined) throw new Error(`no fake for ${address.name}`)
          return ref as ActorRef<Rpcs>
        }
      })
    })
  )
