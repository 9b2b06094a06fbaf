/**
 * An actor's one inbox and the loop that empties it: one message at a time, to its end, so the state needs no locks. Timers
 * are messages. A defect in `handle` ends the loop, and with it the actor.
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
import * as Metrics from "../../services/telemetry/Metrics.ts"
import * as SelfModule from "./Self.ts"

export interface Inbox<Message> {
  /** Waits while the inbox is full. `false`: the actor is dying, and the message is lost. */
  readonly post: (message: Message) => Effect.Effect<boolean>
  /** Never waits, and may be called outside Effect. `false`: full or dying, and the message is lost. */
  readonly unsafePost: (message: Message) => boolean
  /**
   * Posts what `message` makes of a new reply, and waits for that reply. Has no deadline of its own, since the asker's ask has
   * one and its interruption ends this wait; `handle` may still answer, to nobody.
   */
  readonly ask: <A, E = never>(message: (reply: Reply<A, E>) => Message) => Effect.Effect<A, E>
  /** As `ask`, for actors that ask themselves or owe the asker an earlier answer. */
  readonly askWithin: <A, E = never>(
    deadline: Duration.DurationInput,
    message: (reply: Reply<A, E>) => Message
  ) => Effect.Effect<A, E | Cause.TimeoutException>
  /** Posts `message` after `delay`, once. A timer of the same name that has not fired yet is replaced. */
  readonly setTimer: (name: string, delay: Duration.DurationInput, message: Message) => Effect.Effect<void>
  /** The message may have been posted just before and still arrive. */
  readonly clearTimer: (name: string) => Effect.Effect<void>
  readonly depth: () => number
}

export type Reply<A, E = never> = Deferred.Deferred<A, E>

export interface Options<Message, R> {
  /** For status and metrics; "inbox" unless given. */
  readonly name?: string
  /** Messages waiting, not counting the one being handled. */
  readonly capacity: number
  /** Expected failures are replies or state; whatever else goes wrong is a defect. */
  readonly handle: (message: Message, inbox: Inbox<Message>) => Effect.Effect<void, never, R>
}

export const make = Effect.fnUntraced(function*<Message, R = never>(options: Options<Message, R>) {
  /** `at`: when it was posted, ms; waiting for room in a full inbox is waiting, too. */
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
      const key = reply as unknown as Reply<never> // only ever failed with a cause, which suits every type
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
    Effect.orDie, // taking fails only after the mailbox has ended, which only the next line does
    Effect.onExit((exit) => Effect.zipRight(mailbox.shutdown, strand(waiting, exit))),
    SelfModule.fork
  )
  return inbox
})

/** A dead loop answers nobody: its askers die of what it died of, and the runtime tells their callers. */
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
