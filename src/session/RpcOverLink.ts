/**
 * `@effect/rpc` over links: MessagePack inside a checked length prefix. One server serves many
 * links. A client fails all its calls at once when its link ends. Each link is read by one fiber,
 * in which handlers start.
 */
import { RpcClient, RpcSerialization, RpcServer } from "@effect/rpc"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import type { FromClientEncoded, FromServerEncoded, RequestEncoded } from "@effect/rpc/RpcMessage"
import { Duration, Effect, Either, Mailbox, Option, Schedule, type Scope, Stream } from "effect"
import * as LengthPrefix from "../protocol/bytes/LengthPrefix.ts"
import { DEFAULT_GAP_MS } from "../protocol/relay/IdleCuts.ts"
import type { NodeKey } from "../protocol/trust/NodeKey.ts"
import { CloseCode, type Link } from "./Link.ts"
import { MessageQueue, MessageTooLong } from "./MessageQueue.ts"
import { nowMs } from "./MonotonicClock.ts"
import * as MsgPackCheck from "./MsgPackCheck.ts"

/**
 * Header in which a handler finds the calling node. The server sets it; a client's own value is
 * dropped.
 */
export const NODE_HEADER = "node"
/** Headers of a client that are passed on (W3C Trace Context). */
const TRACE_HEADERS = new Set(["traceparent", "tracestate"])
/** Most unanswered calls of one link, including streams. Further calls are refused. */
export const MAX_IN_FLIGHT = 64
/** Default interval between a client's pings. */
export const PING_EVERY = Duration.millis(DEFAULT_GAP_MS)
/**
 * How long a check after a network change waits for an answer. TCP can retransmit twice in this
 * time on an ordinary path.
 */
export const CHECK_DEADLINE = Duration.millis(1500)
/** Default time without any message after which the server cuts a link. */
export const SILENCE_LIMIT = Duration.seconds(30)
/** Silence checks in one {@link SILENCE_LIMIT}. */
const SWEEPS_PER_LIMIT = 6

/**
 * Uses plain maps instead of msgpackr's records, which a check could not follow from one message to
 * the next.
 */
const serialization = RpcSerialization.makeMsgPack({ useRecords: false, maxBufferSize: LengthPrefix.MAX_BODY_BYTES })
type Parser = RpcSerialization.Parser

class BrokenPeer extends Error {
  override readonly name = "BrokenPeer"
}

/** Decodes the messages in `bytes`. Throws `BrokenPeer`. */
const decode = (decoder: LengthPrefix.Decoder, parser: Parser, bytes: Uint8Array): ReadonlyArray<unknown> => {
  const bodies = decoder.push(bytes)
  if (Either.isLeft(bodies)) throw new BrokenPeer(`a message of ${bodies.left.bytes} bytes`)
  return bodies.right.map((body) => {
    if (!MsgPackCheck.isOneValue(body)) throw new BrokenPeer("malformed MessagePack")
    try {
      return parser.decode(body)[0]
    } catch {
      throw new BrokenPeer("MessagePack that can't be decoded")
    }
  })
}

// MessagePack is never text
const encode = (parser: Parser, message: unknown): Uint8Array => parser.encode(message) as Uint8Array

/**
 * Reads until the link ends. Fails with `BrokenPeer` if the peer violates the protocol. Defects of
 * handlers are not caught.
 */
const readAll = (link: Link, parser: Parser, onMessage: (message: unknown) => Effect.Effect<void, BrokenPeer>) => {
  const decoder = new LengthPrefix.Decoder()
  const step: Effect.Effect<boolean, BrokenPeer> = Effect.flatMap(Effect.promise(() => link.read()), (bytes) => {
    if (bytes === undefined) return Effect.succeed(false)
    return Effect.flatMap(
      Effect.try({ try: () => decode(decoder, parser, bytes), catch: (error) => error as BrokenPeer }),
      (messages) => Effect.as(Effect.forEach(messages, onMessage, { discard: true }), true)
    )
  })
  return Effect.iterate(true, { while: (more) => more, body: () => step })
}

// ------------------------------------------------------------------------------------------ server

interface Client {
  readonly link: Link
  readonly queue: MessageQueue
  readonly parser: Parser
  readonly inFlight: Set<string>
  heard: boolean
  silentSweeps: number
}

/** Limits of the server. They default to {@link SILENCE_LIMIT} and {@link MAX_IN_FLIGHT}. */
export interface ServerOptions {
  readonly silenceLimit?: Duration.DurationInput
  readonly maxInFlight?: number
}

/** RPC server for any number of links. */
export interface Server {
  /**
   * Protocol for `RpcServer`. Provide it as `RpcServer.Protocol`, with `disableFatalDefects: true`
   * and `concurrency: "unbounded"`.
   */
  readonly protocol: RpcServer.Protocol["Type"]
  /**
   * Serves one link until it ends or the peer violates the protocol. `node` becomes the header
   * {@link NODE_HEADER} of every call.
   */
  readonly serve: (link: Link, node: NodeKey) => Effect.Effect<void>
  readonly clients: () => number
}

/** Creates an RPC server. The scope ends its check for silent links. */
export const makeServer = (options: ServerOptions = {}): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function*() {
    const maxInFlight = options.maxInFlight ?? MAX_IN_FLIGHT
    const disconnects = yield* Mailbox.make<number>() // one entry per ended link, taken at once
    const clients = new Map<number, Client>()
    let nextId = 0
    let writeRequest: (id: number, message: FromClientEncoded) => Effect.Effect<void> = () => Effect.void
    const protocol = yield* RpcServer.Protocol.make((write) => {
      writeRequest = write
      return Effect.succeed({
        disconnects,
        send: (id: number, response: FromServerEncoded) => Effect.sync(() => sendTo(clients.get(id), response)),
        end: (id: number) => Effect.sync(() => clients.get(id)?.link.close("the server has ended the calls")),
        clientIds: Effect.sync(() => new Set(clients.keys())),
        initialMessage: Effect.succeed(Option.none()),
        supportsAck: true,
        supportsTransferables: false,
        supportsSpanPropagation: true
      })
    })
    yield* Effect.forkScoped(sweep(clients, Duration.decode(options.silenceLimit ?? SILENCE_LIMIT)))

    const onMessage = (
      id: number,
      client: Client,
      node: NodeKey,
      message: unknown
    ): Effect.Effect<void, BrokenPeer> => {
      const checked = checkFromClient(message)
      if (checked === undefined) return Effect.fail(new BrokenPeer("not a message of a client"))
      if (checked._tag === "Ping") return Effect.sync(() => sendTo(client, { _tag: "Pong" }))
      if (checked._tag !== "Request") return writeRequest(id, checked)
      if (client.inFlight.has(checked.id)) return Effect.fail(new BrokenPeer("the same request id twice"))
      if (client.inFlight.size >= maxInFlight) {
        return Effect.sync(() => sendTo(client, tooMany(checked.id, maxInFlight)))
      }
      client.inFlight.add(checked.id)
      return writeRequest(id, { ...checked, headers: headersFor(checked, node) })
    }

    const serve = (link: Link, node: NodeKey) =>
      Effect.suspend(() => {
        const id = nextId++
        const parser = serialization.unsafeMake()
        const client: Client = {
          link,
          queue: new MessageQueue(link),
          parser,
          inFlight: new Set(),
          heard: true,
          silentSweeps: 0
        }
        clients.set(id, client)
        return readAll(link, parser, (message) => {
          client.heard = true
          return onMessage(id, client, node, message)
        }).pipe(
          Effect.catchAll(({ message }) => Effect.sync(() => link.close(message, CloseCode.protocol))),
          Effect.asVoid,
          Effect.ensuring(Effect.suspend(() => {
            clients.delete(id)
            link.close("served")
            return disconnects.offer(id)
          }))
        )
      })
    return { protocol, serve, clients: () => clients.size }
  })

/**
 * Sends a response. A chunk that is too long for one message is split; any other response that is
 * too long is a bug of the handler.
 */
const sendTo = (client: Client | undefined, response: FromServerEncoded): void => {
  if (client === undefined) return
  if (response._tag === "Exit") client.inFlight.delete(response.requestId)
  const body = encode(client.parser, response)
  if (body.length > LengthPrefix.MAX_BODY_BYTES && response._tag === "Chunk" && response.values.length > 1) {
    const half = response.values.length >> 1
    const [first, second] = [response.values.slice(0, half), response.values.slice(half)] as const
    sendTo(client, { ...response, values: first as typeof response.values & typeof first })
    sendTo(client, { ...response, values: second as typeof response.values & typeof second })
  } else client.queue.offer(body)
}

/**
 * Cuts the links that were silent for the whole limit. One timer serves all links, so the hot path
 * reads no clock.
 */
const sweep = (clients: ReadonlyMap<number, Client>, limit: Duration.Duration) =>
  Effect.sync(() => {
    for (const client of clients.values()) {
      client.silentSweeps = client.heard ? 0 : client.silentSweeps + 1
      client.heard = false
      if (client.silentSweeps >= SWEEPS_PER_LIMIT) client.link.destroy("silent")
    }
  }).pipe(Effect.schedule(Schedule.spaced(Duration.times(limit, 1 / SWEEPS_PER_LIMIT))))

const headersFor = (request: RequestEncoded, node: NodeKey): ReadonlyArray<[string, string]> => [
  ...request.headers.filter(([name]) => TRACE_HEADERS.has(name)),
  [NODE_HEADER, node]
]

const tooMany = (requestId: string, limit: number): FromServerEncoded => ({
  _tag: "Exit",
  requestId,
  exit: {
    _tag: "Failure",
    cause: {
      _tag: "Die",
      defect: `more than ${limit} calls in flight on this link; wait for answers before asking more`
    }
  }
})

const ID = /^[0-9]{1,19}$/

/**
 * Checks a client's message and copies exactly its known fields. The server turns ids into numbers
 * and would fail on others.
 */
const checkFromClient = (message: unknown): FromClientEncoded | undefined => {
  if (!isRecord(message)) return undefined
  switch (message["_tag"]) {
    case "Ping":
    case "Eof":
      return { _tag: message["_tag"] }
    case "Ack":
    case "Interrupt":
      return isId(message["requestId"]) ? { _tag: message["_tag"], requestId: message["requestId"] } : undefined
    case "Request":
      return checkRequest(message)
    default:
      return undefined
  }
}

const checkRequest = (message: Readonly<Record<string, unknown>>): RequestEncoded | undefined => {
  const { headers, id, payload, sampled, spanId, tag, traceId } = message
  if (!isId(id) || typeof tag !== "string" || !isHeaders(headers)) return undefined
  const traced = typeof traceId === "string" && typeof spanId === "string" && typeof sampled === "boolean" &&
    traceId.length <= 64 && spanId.length <= 64
  return { _tag: "Request", id, tag, payload, headers, ...(traced && { traceId, spanId, sampled }) }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null
const isId = (value: unknown): value is string => typeof value === "string" && ID.test(value)
const isHeaders = (value: unknown): value is ReadonlyArray<[string, string]> =>
  Array.isArray(value) &&
  value.every((pair) =>
    Array.isArray(pair) && pair.length === 2 && typeof pair[0] === "string" && typeof pair[1] === "string"
  )

// ------------------------------------------------------------------------------------------ client

/** Options of {@link makeClient}. */
export interface ClientOptions {
  /** Interval between pings. If a ping is unanswered when the next one is due, the link is cut. */
  readonly pingEvery?: Duration.DurationInput
  /**
   * Each element pings the server at once. Without an answer within {@link CHECK_DEADLINE} the link
   * is cut.
   */
  readonly checks?: Stream.Stream<unknown>
  /**
   * Called when the connection ended without a close notice. `idleMs` is how long neither side had
   * sent anything.
   */
  readonly onCut?: (idleMs: number) => Effect.Effect<void>
}

/**
 * Makes the client's RPC protocol over a link. Provide it as `RpcClient.Protocol`. The link ends
 * with the scope.
 */
export const makeClient = (
  link: Link,
  options: ClientOptions = {}
): Effect.Effect<RpcClient.Protocol["Type"], never, Scope.Scope> =>
  RpcClient.Protocol.make(Effect.fnUntraced(function*(writeResponse) {
    const parser = serialization.unsafeMake()
    const queue = new MessageQueue(link)
    let heard = true
    let heardAfterCheck = true
    let activeAt = yield* nowMs
    const active = Effect.map(nowMs, (now) => {
      activeAt = now
    })
    let dead: RpcClientError | undefined
    const fail = (why: string) =>
      Effect.suspend(() => {
        if (dead !== undefined) return Effect.void
        dead = new RpcClientError({ reason: "Protocol", message: `the link to the relay ended: ${why}` })
        link.destroy(why)
        return writeResponse({ _tag: "ClientProtocolError", error: dead })
      })
    const reading = readAll(link, parser, (message) => {
      heard = true
      heardAfterCheck = true
      if (!isFromServer(message)) return Effect.fail(new BrokenPeer("not a message of a server"))
      return message._tag === "Pong" ? active : Effect.zipRight(active, writeResponse(message))
    }).pipe(
      Effect.matchCauseEffect({
        onFailure: (cause) =>
          fail(cause._tag === "Fail" ? cause.error.message : "the relay's message could not be handled"),
        onSuccess: () =>
          Effect.gen(function*() {
            const { by, reason } = yield* Effect.promise(() => link.closed)
            if (by === "network") yield* options.onCut?.((yield* nowMs) - activeAt) ?? Effect.void
            yield* fail(reason)
          })
      })
    )
    const pinging = Effect.suspend(() => {
      if (!heard) return fail("the relay no longer answers")
      heard = false
      queue.offer(encode(parser, { _tag: "Ping" }))
      return active
    }).pipe(Effect.schedule(Schedule.spaced(options.pingEvery ?? PING_EVERY)))
    const check = Effect.gen(function*() {
      heardAfterCheck = false
      queue.offer(encode(parser, { _tag: "Ping" }))
      yield* Effect.sleep(CHECK_DEADLINE)
      if (!heardAfterCheck) yield* fail("the relay does not answer since the network changed")
    })
    yield* Effect.forkScoped(Effect.interruptible(reading))
    yield* Effect.forkScoped(Effect.interruptible(pinging))
    yield* Effect.forkScoped(Effect.interruptible(Stream.runForEach(options.checks ?? Stream.empty, () => check)))
    yield* Effect.addFinalizer(() => Effect.sync(() => link.close("this node has ended the link")))
    return {
      send: (request: FromClientEncoded) =>
        Effect.suspend(() => {
          if (dead !== undefined) return Effect.fail(dead)
          try {
            return queue.offer(encode(parser, request))
              ? active
              : Effect.fail(ending("the relay takes too little"))
          } catch (error) {
            return error instanceof MessageTooLong ? Effect.fail(ending(error.message)) : Effect.die(error)
          }
        }),
      supportsAck: true,
      supportsTransferables: false
    }
  }))

const ending = (message: string) => new RpcClientError({ reason: "Protocol", message })

const isFromServer = (message: unknown): message is FromServerEncoded => {
  if (!isRecord(message)) return false
  const tag = message["_tag"]
  if (tag === "Pong" || tag === "Defect") return true
  if (tag === "Chunk") return isId(message["requestId"]) && Array.isArray(message["values"])
  return tag === "Exit" && isId(message["requestId"]) && isRecord(message["exit"])
}
