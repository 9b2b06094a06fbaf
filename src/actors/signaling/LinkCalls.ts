/**
 * Calls of other actors to the relay, over the link that is up. A call waits a moment for a link
 * that is being made. It is sent once, because the caller knows best whether to ask again.
 */
import type { RpcClient } from "@effect/rpc"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import { Cause, Duration, Effect, Option, Stream, SubscriptionRef } from "effect"
import type { RelaySignalingRpcs } from "./RelaySignalingRpcs.ts"
import { SignalingDown } from "./SignalingRpcs.ts"

/** How long a call waits for a link that is being made. */
const LINK_PATIENCE = Duration.seconds(4)

/** RPC client of the relay. */
export type Client = RpcClient.FromGroup<typeof RelaySignalingRpcs, RpcClientError>

/** Makes the calls, for which there is no link yet. `problem` says why there is none. */
export const make = Effect.fnUntraced(function*(problem: () => string) {
  const link = yield* SubscriptionRef.make(Option.none<{ readonly client: Client }>())
  return {
    /** Uses this link for calls from now on. */
    use: (client: Client) => SubscriptionRef.set(link, Option.some({ client })),
    /** Makes calls wait, because the link is gone. */
    drop: SubscriptionRef.set(link, Option.none()),
    /** Waits until there is a link. */
    awaitUp: Effect.asVoid(Stream.runHead(Stream.filter(link.changes, Option.isSome))),
    call: <A, E>(call: (client: Client) => Effect.Effect<A, E | RpcClientError>) =>
      link.changes.pipe(
        Stream.filterMap((up) => up),
        Stream.runHead,
        Effect.flatten,
        Effect.timeout(LINK_PATIENCE),
        Effect.catchAll(() => Effect.suspend(() => Effect.fail(new SignalingDown({ message: problem() })))),
        Effect.flatMap(({ client }) => Effect.catchSomeCause(call(client), replaced)),
        Effect.catchIf(isLinkError, (error) => Effect.fail(new SignalingDown({ message: error.message })))
      )
  } as const
})

/** The calls, as {@link make} returns them. */
export type LinkCalls = Effect.Effect.Success<ReturnType<typeof make>>

const isLinkError = (error: unknown): error is RpcClientError => error instanceof RpcClientError

/**
 * Makes a failure of an interrupted call. A link that is replaced interrupts its calls in flight,
 * and their callers, which were not interrupted, must learn that.
 */
const replaced = (cause: Cause.Cause<unknown>) =>
  Cause.isInterruptedOnly(cause)
    ? Option.some(Effect.fail(new SignalingDown({ message: "the link to the relay was replaced during the call" })))
    : Option.none()
