/**
 * An actor's single inbox, and the loop that empties it. The loop handles one message at a time and
 * finishes it before the next, so the actor's state needs no locks. Timers are messages, too. A
 * defect in `handle` ends the loop and with it the actor.
 */
import {
  type Cause,
  Context,
  Deferred,
  type Duration,
  Effect,
  Exit,
  FiberId,
  FiberMap,
  Mailbox,
  Option,
  Tracer
} from "effect"
import * as Metrics from "../../../services/telemetry/Metrics.ts"
import * as SelfModule from "./Self.ts"

/** The queue of one actor, and the ways to put messages into it. */
export interface Inbox<Message> {
  /**
   * Posts a message, and waits while the inbox is full. Returns `false` if the actor is dying; the
   * message is then lost.
   */
  readonly post: (message: Message) => Effect.Effect<boolean>
  /**
   * Posts a message without waiting, also from outside Effect. Returns `false` if the inbox is full
   * or the actor is dying; the message is then lost.
   */
  readonly unsafePost: (message: Message) => boolean
  /**
   * Makes a reply, posts the message that `message` returns for it, and waits for the answer. There
   * is no deadline here: the caller's ask has one, and its interruption ends this wait. An answer
   * that comes after that is ignored.
   */
  readonly ask: <A, E = never>(message: (reply: Reply<A, E>) => Message) => Effect.Effect<A, E>
  /**
   * Works as `ask`, with a deadline. Use it in an actor that asks itself, or that must answer
   * earlier than the caller's own deadline.
   */
  readonly askWithin: <A, E = never>(
    deadline: Duration.DurationInput,
    message: (reply: Reply<A, E>) => Message
  ) => Effect.Effect<A, E | Cause.TimeoutException>
  /**
   * Posts `message` once, after `delay`. Replaces a timer of the same name that has not fired yet.
   */
  readonly setTimer: (name: string, delay: Duration.DurationInput, message: Message) => Effect.Effect<void>
  /** Stops a timer. Its message may already be in the inbox, and is then still handled. */
  readonly clearTimer: (name: string) => Effect.Effect<void>
  /** Number of messages that wait in the queue. */
  readonly depth: () => number
}

/** The slot that `handle` fills with the answer to an ask. */
export type Reply<A, E = never> = Deferred.Deferred<A, E>

/** Options of {@link make}. */
export interface Options<Message, R> {
  /** Name in status and metrics. "inbox" unless given. */
  readonly name?: string
  /**
   * Most messages that may wait, not counting the one being handled. When the inbox is full, `post`
   * and timers wait and `unsafePost` drops the message.
   */
  readonly capacity: number
  /**
   * Handles one message. Expected failures become replies or state; any other failure is a defect.
   */
  readonly handle: (message: Message, inbox: Inbox<Message>) => Effect.Effect<void, never, R>
}

/** Makes an inbox and starts its loop, which runs until the scope ends. */
export const make = Effect.fnUntraced(function*<Message, R = never>(options: Options<Message, R>) {
  /**
   * A message in the inbox. `at` is when it was posted, in ms, so waiting for room in a full inbox
   * counts as waiting.
   */
  type Letter = { readonly message: Message; readonly span: Option.Option<Tracer.AnySpan>; readonly at: number }
  const self = yield* SelfModule.Self
  const mailbox = yield* Mailbox.make<Letter>({ capacity: options.capacity })
  const timers = yield* FiberMap.make<string>()
  const waiting = new Set<Reply<never>>()
  const depth = () => Option.getOrElse(mailbox.unsafeSize(), () => 0)
  const waits = new Metrics.Distribution()
  const letter = (message: Message, span: Letter["span"] = Option.none()): Letter => ({
    message,
    span,
    at: performance.now()
  })

  const post = (message: Message) => Effect.flatMap(currentSpan, (span) => mailbox.offer(letter(message, span)))
  const ask = <A, E = never>(message: (reply: Reply<A, E>) => Message) =>
    Effect.suspend(() => {
      const reply = Deferred.unsafeMake<A, E>(FiberId.none)
      // It only ever fails with a cause, which suits every type.
      const key = reply as unknown as Reply<never>
      waiting.add(key)
      return Effect.flatMap(
        post(message(reply)),
        (taken) => (taken ? Deferred.await(reply) : Effect.die(dying(self.name)))
      )
        .pipe(Effect.ensuring(Effect.sync(() => waiting.delete(key))))
    })
  const inbox: Inbox<Message> = {
    post,
    unsafePost: (message) => depth() < options.capacity && mailbox.unsafeOffer(letter(message)),
    ask,
    askWithin: (deadline, message) => Effect.timeout(ask(message), deadline),
    setTimer: (name, delay, message) =>
      Effect.asVoid(
        FiberMap.run(
          timers,
          name,
          Effect.zipRight(Effect.sleep(delay), Effect.suspend(() => mailbox.offer(letter(message))))
        )
      ),
    clearTimer: (name) => FiberMap.remove(timers, name),
    depth
  }
  const handleNext = Effect.flatMap(mailbox.take, ({ at, message, span }) => {
    waits.observe((performance.now() - at) / 1000)
    return Option.match(span, {
      onNone: () => options.handle(message, inbox),
      onSome: (span) => Effect.withParentSpan(options.handle(message, inbox), span)
    })
  })
  const name = options.name ?? "inbox"
  yield* self.watchQueue({ name, capacity: options.capacity, depth })
  yield* self.exposeMetrics(() => metricsOf({ actor: self.name, queue: name }, depth(), waits))
  yield* Effect.forever(handleNext).pipe(
    // `take` fails only after the mailbox has ended, and only the next line ends it.
    Effect.orDie,
    Effect.onExit((exit) => Effect.zipRight(mailbox.shutdown, strand(waiting, exit))),
    SelfModule.fork
  )
  return inbox
})

/**
 * Fails the askers of a dead loop with the cause of its death. The runtime reports that to their
 * callers.
 */
const strand = (waiting: ReadonlySet<Reply<never>>, exit: Exit.Exit<never>) =>
  Exit.isSuccess(exit)
    ? Effect.void
    : Effect.forEach(waiting, (reply) => Deferred.failCause(reply, exit.cause), { discard: true })

const metricsOf = (
  labels: Metrics.Labels,
  depth: number,
  waits: Metrics.Distribution
): ReadonlyArray<Metrics.Family> => [
  Metrics.gauge({ name: "sallyport_actor_queue_depth", help: "Messages that wait in an actor's queue." }, [
    { labels, value: depth }
  ]),
  Metrics.histogram({
    name: "sallyport_actor_message_wait_seconds",
    unit: "seconds",
    help: "Time from a message's posting until its actor took it up."
  }, [{ labels, of: waits }])
]

const dying = (name: string) => new Error(`actor ${name} is dying and takes no more messages`)

const currentSpan = Effect.map(
  Effect.context<never>(),
  (context) => Context.getOption(context, Tracer.ParentSpan)
)
