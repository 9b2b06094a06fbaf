/**
 * Carries `@effect/rpc` over a `Port`. Messages are handled in order of arrival: the fiber of each
 * message runs at once, up to its first wait. For a request, that is after its handler has started.
 * A chunk of a stream may wait for a slow reader without holding up anything else, because its
 * sender waits for the acknowledgement before it sends the next chunk.
 */
import { RpcClient, RpcServer } from "@effect/rpc"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import type { FromClientEncoded, FromServerEncoded } from "@effect/rpc/RpcMessage"
import { Context, Deferred, Effect, type Fiber, FiberSet, Mailbox, Option, Runtime, type Scope } from "effect"
import type { Transferable } from "node:worker_threads"
import type { Port } from "./Port.ts"

type Fork = (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>

/**
 * The error of calls in flight and of later calls, after the other side closed the port or this
 * side hung up.
 */
const portClosed = () => new RpcClientError({ reason: "Protocol", message: "the port to the actor was closed" })

/**
 * Returns a function that forks effects onto the scope. These run without context, because a
 * handler would otherwise see the services (a Scope, a span) of whoever made the port. Loggers, the
 * tracer and other fiber refs are kept.
 */
const makeFork: Effect.Effect<Fork, never, Scope.Scope> = Effect.gen(function*() {
  const fibers = yield* FiberSet.make<void>()
  const { fiberRefs, runtimeFlags } = yield* Effect.runtime()
  const fork = Runtime.runFork(Runtime.make({ context: Context.empty(), fiberRefs, runtimeFlags }))
  return (effect) => {
    const fiber = fork(effect)
    FiberSet.unsafeAdd(fibers, fiber)
    return fiber
  }
})

const moved = (transferables: ReadonlyArray<unknown> | undefined) =>
  transferables as ReadonlyArray<Transferable> | undefined

/** The caller's end of a port. */
export interface ClientConnection {
  readonly protocol: RpcClient.Protocol["Type"]
  readonly isOpen: () => boolean
  /** Done when either side has closed the port. */
  readonly closed: Effect.Effect<void>
  /** Fails the calls in flight and closes the port. Later calls fail, too, until the scope ends. */
  readonly hangUp: Effect.Effect<void>
}

/** Makes an RPC client protocol on `port`, which closes when the scope ends. */
export const makeClient = Effect.fnUntraced(function*(port: Port) {
  const closed = yield* Deferred.make<void>()
  let open = true
  let hangUp: Effect.Effect<void> = Effect.void
  const protocol = yield* RpcClient.Protocol.make(Effect.fnUntraced(function*(writeResponse) {
    const fork = yield* makeFork
    const onMessage = (message: unknown) => void fork(writeResponse(message as FromServerEncoded))
    hangUp = Effect.suspend(() => {
      if (!open) return Effect.void
      open = false
      port.off("message", onMessage)
      port.off("close", onClose)
      port.close()
      return Effect.zipRight(
        writeResponse({ _tag: "ClientProtocolError", error: portClosed() }),
        Deferred.succeed(closed, undefined)
      )
    })
    const onClose = () => void fork(hangUp)
    port.on("message", onMessage)
    port.on("close", onClose)
    yield* Effect.addFinalizer(() => hangUp)
    return {
      send: (request: FromClientEncoded, transferables?: ReadonlyArray<unknown>) =>
        Effect.suspend(() => {
          if (!open) return Effect.fail(portClosed())
          // A payload that cannot be cloned is a bug of the caller, so it is a defect.
          port.postMessage(request, moved(transferables))
          return Effect.void
        }),
      supportsAck: true,
      supportsTransferables: true
    }
  }))
  return { protocol, isOpen: () => open, closed: Deferred.await(closed), hangUp } satisfies ClientConnection
})

/** The called actor's end of a port. */
export interface ServerConnection {
  readonly protocol: RpcServer.Protocol["Type"]
  readonly closed: Effect.Effect<void>
  /**
   * Closes the port at once. No call is answered after that, so the caller sees a closed port and
   * not interrupted calls.
   */
  readonly hangUp: Effect.Effect<void>
}

/** Makes an RPC server protocol on `port`, which closes when the scope ends. */
export const makeServer = Effect.fnUntraced(function*(port: Port) {
  const closed = yield* Deferred.make<void>()
  // There is one client, which can leave only once.
  const disconnects = yield* Mailbox.make<number>({ capacity: 1, strategy: "dropping" })
  let open = true
  let hangUp: Effect.Effect<void> = Effect.void
  const protocol = yield* RpcServer.Protocol.make(Effect.fnUntraced(function*(writeRequest) {
    const fork = yield* makeFork
    const onMessage = (message: unknown) => void fork(writeRequest(CLIENT_ID, message as FromClientEncoded))
    hangUp = Effect.suspend(() => {
      if (!open) return Effect.void
      open = false
      port.off("message", onMessage)
      port.off("close", onClose)
      port.close()
      disconnects.unsafeOffer(CLIENT_ID)
      return Deferred.succeed(closed, undefined)
    })
    const onClose = () => void fork(hangUp)
    port.on("message", onMessage)
    port.on("close", onClose)
    yield* Effect.addFinalizer(() => hangUp)
    return {
      disconnects,
      send: (_client: number, response: FromServerEncoded, transferables?: ReadonlyArray<unknown>) =>
        Effect.sync(() => {
          if (open) port.postMessage(response, moved(transferables))
        }),
      end: () => Effect.void,
      clientIds: Effect.succeed(new Set([CLIENT_ID])),
      initialMessage: Effect.succeed(Option.none()),
      supportsAck: true,
      supportsTransferables: true,
      supportsSpanPropagation: true
    }
  }))
  return { protocol, closed: Deferred.await(closed), hangUp } satisfies ServerConnection
})

const CLIENT_ID = 0 // a port has one client
