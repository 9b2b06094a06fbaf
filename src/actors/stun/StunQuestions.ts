/**
 * The STUN requests in progress: each is sent again on the schedule of `StunRetry` until it is
 * answered or has failed. Timers and datagrams come from the actor's loop.
 */
import { Deferred, Effect, Either } from "effect"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as StunMessage from "../../protocol/nat/Stun.ts"
import * as StunRetry from "../../protocol/nat/StunRetry.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import type * as Inbox from "../runtime/actor/Inbox.ts"
import { type ControlDatagram, type Mapped, StunTimeout, StunUnavailable } from "./StunRpcs.ts"

/**
 * Most STUN requests in progress, including the actor's own. Further ones are refused, because each
 * costs packets.
 */
const MAX_PENDING = 64

/** The result of one request. */
export type Answer = Either.Either<Mapped, StunTimeout | StunUnavailable>

/** The reply to a caller. */
export type Reply = Inbox.Reply<Mapped, StunTimeout | StunUnavailable>

/** A request to a STUN server. */
export interface Question {
  readonly server: SocketAddr
  /** The caller's reply. `null` for a request of the actor's own gathering. */
  readonly reply: Reply | null
  /**
   * The server that has named this other port or address of its own. `null` for a request to a
   * server of the list.
   */
  readonly of: SocketAddr | null
}

/** A server of the list, and what it answered to the actor's own request. */
export interface Answered {
  readonly server: SocketAddr
  readonly success: StunMessage.Success
}

/** Options of {@link make}. */
export interface Options {
  /** Sends a request without waiting. */
  readonly send: (server: SocketAddr, txId: Uint8Array) => Effect.Effect<unknown>
  readonly randomBytes: (count: number) => Effect.Effect<Uint8Array>
  /** Has `onRetry` called with this id after the delay. */
  readonly setTimer: (id: string, delayMs: number) => Effect.Effect<void>
  readonly clearTimer: (id: string) => Effect.Effect<void>
  /** Takes the result of a request of the actor's own gathering. */
  readonly onOwn: (question: Question, answer: Answer) => Effect.Effect<void>
}

type Pending = Question & {
  readonly txId: Uint8Array
  readonly retry: StunRetry.State
  readonly sentAtMs: number
}

/** Makes the requests. None is in progress at first. */
export const make = ({ clearTimer, onOwn, randomBytes, send, setTimer }: Options) => {
  const pending = new Map<string, Pending>()
  const counts = new Metrics.Counts<"answered" | "timed_out" | "not_asked">()

  const finish = (question: Question, answer: Answer) => {
    counts.add(Either.isRight(answer) ? "answered" : answer.left._tag === "StunTimeout" ? "timed_out" : "not_asked")
    return question.reply === null
      ? onOwn(question, answer)
      : Effect.asVoid(Deferred.complete(question.reply, answer))
  }
  const apply = Effect.fnUntraced(function*(asked: Omit<Pending, "retry">, step: StunRetry.Step) {
    const id = StunMessage.toHex(asked.txId)
    if (step._tag === "TimedOut") {
      pending.delete(id)
      return yield* finish(asked, Either.left(new StunTimeout({ server: asked.server, sends: step.sends })))
    }
    const now = yield* nowMs
    pending.set(id, { ...asked, retry: step.state, sentAtMs: step._tag === "Send" ? now : asked.sentAtMs })
    if (step._tag === "Send") yield* send(asked.server, asked.txId)
    return yield* setTimer(id, Math.max(0, Math.ceil(step.state.deadline - now)))
  })

  const ask = Effect.fnUntraced(function*(question: Question) {
    const txId = yield* randomBytes(StunMessage.TX_ID_BYTES)
    const now = yield* nowMs
    if (pending.size >= MAX_PENDING) {
      const why = "too many STUN questions are under way; ask again later"
      return yield* finish(question, Either.left(unavailable(question.server, why)))
    }
    return yield* apply({ ...question, txId, sentAtMs: now }, StunRetry.start(now, StunRetry.FAST))
  })

  return {
    ask,
    /**
     * Asks a server for a caller. Refuses what is not an address, and an address for which
     * `hasPort` finds no socket.
     */
    discover: (server: SocketAddr, reply: Reply, hasPort: (literal: string) => boolean) => {
      const host = Candidate.canonical(server.host)
      if (host !== null && hasPort(host)) return ask({ server: { host, port: server.port }, reply, of: null })
      const why = host === null
        ? "it is no literal address; resolve it first"
        : "no UDP socket of its IP version is open"
      return Effect.asVoid(Deferred.fail(reply, unavailable(server, why)))
    },
    /** Drops the requests of the actor's own gathering, whose answers are not wanted any more. */
    dropOwn: Effect.suspend(() =>
      Effect.forEach([...pending], ([id, { reply }]) => {
        if (reply !== null) return Effect.void
        pending.delete(id)
        return clearTimer(id)
      }, { discard: true })
    ),
    /** Handles a timer that `setTimer` has set. */
    onRetry: Effect.fnUntraced(function*(id: string) {
      const asked = pending.get(id)
      if (asked !== undefined) yield* apply(asked, StunRetry.onTick(asked.retry, yield* nowMs))
    }),
    /**
     * Takes a datagram. Returns the answer of a server of the list to the actor's own request, and
     * `null` for all else. A datagram that answers nothing is ignored.
     */
    onDatagram: Effect.fnUntraced(function*({ bytes, from }: ControlDatagram) {
      const decoded = StunMessage.decode(bytes)
      if (Either.isLeft(decoded) || decoded.right._tag !== "Success") {
        yield* Effect.logTrace("ignored", from)
        return null
      }
      const success = decoded.right
      const id = StunMessage.toHex(success.txId)
      const asked = pending.get(id)
      if (
        asked === undefined || asked.server.host !== Candidate.canonical(from.host) || asked.server.port !== from.port
      ) {
        yield* Effect.logTrace("a stray STUN answer", from)
        return null
      }
      pending.delete(id)
      yield* clearTimer(id)
      yield* finish(asked, Either.right({ mapped: success.mapped, rttMs: (yield* nowMs) - asked.sentAtMs }))
      const answered: Answered = { server: asked.server, success }
      return asked.reply === null && asked.of === null ? answered : null
    }),
    metrics: (): ReadonlyArray<Metrics.Family> => [
      Metrics.counter(
        { name: "sallyport_stun_questions", help: "Questions to STUN servers, by what became of them." },
        counts.points("result")
      )
    ]
  } as const
}

/** The error for a request that was not sent. */
const unavailable = (server: SocketAddr, why: string) =>
  new StunUnavailable({ server, message: `STUN server ${server.host}:${server.port} was not asked: ${why}` })
