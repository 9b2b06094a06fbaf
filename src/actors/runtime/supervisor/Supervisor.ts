/**
 * Starts the threads and the actors placed on them, connects actors that use one another, and
 * restarts the ones that die. When something keeps dying, it gives up, so that the process can end.
 * It lives in the main thread, and no call between actors passes through it.
 */
import { type Rpc, RpcClient, type RpcGroup } from "@effect/rpc"
import { RpcClientError } from "@effect/rpc/RpcClientError"
import {
  Cause,
  Clock,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Option,
  PubSub,
  Random,
  Schema,
  type Scope,
  Stream
} from "effect"
import { MessageChannel, type MessagePort } from "node:worker_threads"
import type * as Metrics from "../../../services/telemetry/Metrics.ts"
import * as SpanRing from "../../../services/telemetry/SpanRing.ts"
import type * as Telemetry from "../../../services/telemetry/Telemetry.ts"
import { nowMs } from "../../../session/MonotonicClock.ts"
import { NotStarted } from "../actor/Actor.ts"
import type { ActorAddress, Any as AnyAddress } from "../actor/ActorAddress.ts"
import * as ActorRef from "../actor/ActorRef.ts"
import * as Liveness from "../liveness/Liveness.ts"
import * as MessagePortProtocol from "../port/MessagePortProtocol.ts"
import { type Death, type Health, ThreadRpcs } from "../thread/ThreadContract.ts"
import type { Spawn, Thread } from "../thread/Threads.ts"
import * as Placement from "./Placement.ts"
import * as Restart from "./Restart.ts"
import * as RuntimeMetrics from "./RuntimeMetrics.ts"
import * as Status from "./Status.ts"
import * as StopOrder from "./StopOrder.ts"

/** An actor to start. */
export interface ActorSpec {
  readonly address: AnyAddress
  /** Actors that it uses, as the actor itself declares them. */
  readonly uses: ReadonlyArray<AnyAddress>
  /** Config in its encoded form, which the actor decodes. It is read again for each incarnation. */
  readonly config: unknown
  /**
   * Whether the process does its main work without this actor. Once such an actor has been up, it
   * is restarted without limit, however often it dies. The same holds for a thread with only such
   * actors.
   */
  readonly optional?: boolean
}

/** Time limits of the supervisor. */
export interface Deadlines {
  /**
   * How long a thread may take to answer for the first time, and an actor to be up. Time in which
   * the thread waits for a processor does not count.
   */
  readonly boot: Duration.DurationInput
  /** How long each actor may take to stop, and after that each thread to end by itself. */
  readonly stop: Duration.DurationInput
  /**
   * How long a thread may run without a turn of its event loop before it is killed; see
   * `Liveness.verdict`.
   */
  readonly health: Duration.DurationInput
}

export const DEFAULT_DEADLINES: Deadlines = { boot: "10 seconds", stop: "2 seconds", health: "10 seconds" }

/** Settings of a supervisor. */
export interface Options {
  readonly actors: ReadonlyArray<ActorSpec>
  readonly placement: Placement.Placement
  /** How to make a thread, for example `Threads.workers` or `Threads.inThread`. */
  readonly spawn: Spawn
  readonly restart?: Restart.Policy
  readonly deadlines?: Partial<Deadlines>
}

/**
 * Error when a thread or an actor died more often in a row than the policy allows. The rest goes
 * on, so the process should stop it and end.
 */
export class GaveUp extends Schema.TaggedError<GaveUp>()("GaveUp", { what: Schema.String, lastError: Schema.String }) {
  override get message(): string {
    return `${this.what} failed too often and is not restarted; its last error: ${this.lastError}`
  }
}

/** The threads and actors of this process. */
export interface Supervisor {
  /** Returns a ref by which the main thread calls an actor. An unknown address is a defect. */
  readonly ref: <Rpcs extends Rpc.Any>(address: ActorAddress<Rpcs>) => ActorRef.ActorRef<Rpcs>
  /** State of all threads and actors now. */
  readonly status: Effect.Effect<ReadonlyArray<Status.ThreadStatus>>
  /**
   * Metrics of all threads now. `RuntimeMetrics` says how threads that do not answer are handled.
   */
  readonly metrics: Effect.Effect<ReadonlyArray<Metrics.Family>>
  /**
   * Last spans that ended on each thread, by thread name, including `main`. Threads that do not
   * answer are left out.
   */
  readonly spans: Effect.Effect<Readonly<Record<string, SpanRing.Snapshot>>>
  /**
   * Changes of state: the last 64, then each later one. A reader that falls 256 behind loses the
   * oldest.
   */
  readonly events: Stream.Stream<Status.Event>
  /** Waits until each actor has been up once. */
  readonly awaitUp: Effect.Effect<void, GaveUp>
  /** Fails when the supervisor gives up a thread or an actor. */
  readonly awaitGiveUp: Effect.Effect<never, GaveUp>
  /** Returns one line for each thread and actor that is not up now. Optional ones are left out. */
  readonly down: Effect.Effect<ReadonlyArray<string>>
  /**
   * Returns the lines of `down` for those that have not been up for {@link LOST_AFTER}. Perhaps
   * only a restart of the process helps them.
   */
  readonly lost: Effect.Effect<ReadonlyArray<string>>
  /**
   * Changes what the running threads log and trace. Threads that start later get their settings
   * from `Options.spawn`.
   */
  readonly tune: (settings: Telemetry.Tunable) => Effect.Effect<void>
  /** Ends the thread at once, as a crash would. It is restarted. Unknown names are ignored. */
  readonly kill: (thread: string) => Effect.Effect<void>
}

const HEALTH_INTERVAL = Duration.seconds(1)
/**
 * Delay before a bad verdict on a thread is checked again. An answer of the thread may still lie
 * unread in the main thread's event loop for a turn or two.
 */
const LAST_CHANCE = Duration.millis(50)
/** How often an actor's boot deadline is compared with the time that its thread was given. */
const BOOT_LOOK = Duration.millis(100)
/**
 * How long something must be down to count as lost. This is longer than the patience of
 * `Restart.DEFAULT`, after which the process ends by itself.
 */
const LOST_AFTER = Duration.minutes(3)
/**
 * How long to wait for a thread's end after its port closed. An ended thread closes its port, too,
 * and its end tells the reason.
 */
const PORT_CLOSED_GRACE = Duration.seconds(1)
/** How many events a slow subscriber may fall behind. Then it loses the oldest. */
const EVENTS_CAPACITY = 256
const EVENTS_REPLAY = 64
/** Longest delay between restarts of something optional that keeps dying. */
const OPTIONAL_MAX = Duration.seconds(30)

/** A thread that answers. */
type Host = {
  readonly client: ActorRef.Client<RpcGroup.Rpcs<typeof ThreadRpcs>>
  /** Done when the thread is gone and its successor can be awaited. */
  readonly gone: Deferred.Deferred<void>
}

type ThreadEntry = Status.Entry & {
  readonly actors: Array<ActorEntry>
  /**
   * The running thread, once it has answered. A new `Deferred` replaces it when that thread is
   * gone.
   */
  host: Deferred.Deferred<Host>
  running: Thread | null
  health: Health | null
  /** How this incarnation has spent its time. */
  life: Liveness.State
}
type ActorEntry = Status.Entry & {
  readonly spec: ActorSpec
  readonly thread: ThreadEntry
  readonly firstUp: Deferred.Deferred<void>
  /** The main thread's own edge to the actor. */
  readonly main: { readonly ref: ActorRef.ActorRef<Rpc.Any>; readonly link: ActorRef.Link }
  /** Thread on which this incarnation is loaded and can be connected. `null` if it is on none. */
  loaded: Host | null
  /** Why this incarnation died. */
  died: Deferred.Deferred<string>
}
type World = {
  readonly scope: Scope.Scope
  readonly spawn: Spawn
  readonly policy: Restart.Policy
  readonly deadlines: Deadlines
  readonly events: PubSub.PubSub<Status.Event>
  readonly gaveUp: Deferred.Deferred<never, GaveUp>
  readonly metrics: RuntimeMetrics.RuntimeMetrics
  readonly threads: ReadonlyMap<string, ThreadEntry>
  readonly actors: ReadonlyMap<string, ActorEntry>
}

/**
 * Starts everything and returns at once (see `awaitUp`). At the end of the scope, callers are
 * stopped before the actors they use.
 */
export const make = Effect.fnUntraced(function*(options: Options) {
  const world = yield* makeWorld(options)
  const threadLoops = yield* Effect.forEach(
    world.threads.values(),
    (it) => Effect.forkIn(runThread(world, it), world.scope)
  )
  const actorLoops = yield* Effect.forEach(
    world.actors.values(),
    (it) => Effect.forkIn(runActor(world, it), world.scope)
  )
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      yield* Fiber.interruptAll(actorLoops)
      yield* stopActors(world)
      yield* Fiber.interruptAll(threadLoops)
      for (const thread of world.threads.values()) yield* mark(world, thread, "stopped", null)
    })
  )
  const supervisor: Supervisor = {
    ref: (address) => {
      const found = world.actors.get(address.name)
      if (found === undefined) throw new Error(`no actor ${address.name} was given to this supervisor`)
      return found.main.ref // its type fits: it was made from the address of this name
    },
    status: Effect.sync(() => [...world.threads.values()].map(threadStatus)),
    metrics: world.metrics.read,
    spans: readSpans(world),
    events: Stream.fromPubSub(world.events),
    down: notUp(world, Duration.zero),
    lost: notUp(world, LOST_AFTER),
    awaitUp: Effect.forEach(world.actors.values(), (it) => Deferred.await(it.firstUp), { discard: true }).pipe(
      Effect.raceFirst(Deferred.await(world.gaveUp))
    ),
    awaitGiveUp: Deferred.await(world.gaveUp),
    tune: (settings) =>
      Effect.forEach(
        world.threads.values(),
        (thread) =>
          Effect.flatMap(hostOf(thread), ({ client }) => client.Tune(settings)).pipe(
            Effect.timeout(RuntimeMetrics.DEADLINE),
            Effect.ignore // a thread that is gone starts again with the new settings
          ),
        { concurrency: "unbounded", discard: true }
      ),
    kill: (name) => Effect.suspend(() => world.threads.get(name)?.running?.kill ?? Effect.void)
  }
  return supervisor
})

const makeWorld = Effect.fnUntraced(function*(options: Options) {
  const placed = options.actors.map(({ address, uses }) => ({ name: address.name, uses: uses.map(({ name }) => name) }))
  const placement = yield* Placement.resolve(options.placement, placed)
  const threads = new Map<string, ThreadEntry>()
  const actors = new Map<string, ActorEntry>()
  for (const [name, names] of placement) {
    const host = yield* Deferred.make<Host>()
    const thread: ThreadEntry = {
      ...Status.newEntry("thread", name, yield* nowMs),
      actors: [],
      host,
      running: null,
      health: null,
      life: Liveness.start(yield* nowMs)
    }
    threads.set(name, thread)
    for (const spec of options.actors) {
      if (!names.includes(spec.address.name)) continue
      const actor: ActorEntry = {
        ...Status.newEntry("actor", spec.address.name, yield* nowMs),
        spec,
        thread,
        firstUp: yield* Deferred.make<void>(),
        main: yield* ActorRef.make(spec.address as ActorAddress<Rpc.Any>),
        loaded: null,
        died: yield* Deferred.make<string>(),
        isOptional: spec.optional === true
      }
      thread.actors.push(actor)
      actors.set(actor.name, actor)
    }
    thread.isOptional = thread.actors.length > 0 && thread.actors.every(({ isOptional }) => isOptional)
  }
  const metrics = yield* RuntimeMetrics.make([...threads.values()], askMetrics)
  yield* Effect.forkScoped(Effect.forever(Effect.delay(metrics.sampleMain, HEALTH_INTERVAL)))
  return {
    scope: yield* Effect.scope,
    spawn: options.spawn,
    policy: options.restart ?? Restart.DEFAULT,
    deadlines: { ...DEFAULT_DEADLINES, ...options.deadlines },
    events: yield* PubSub.sliding<Status.Event>({ capacity: EVENTS_CAPACITY, replay: EVENTS_REPLAY }),
    gaveUp: yield* Deferred.make<never, GaveUp>(),
    metrics,
    threads,
    actors
  } satisfies World
})

const hostOf = ({ host }: ThreadEntry) =>
  Effect.flatMap(Deferred.poll(host), Option.getOrElse(() => Effect.fail("down" as const)))

const askMetrics = (thread: ThreadEntry) => Effect.flatMap(hostOf(thread), ({ client }) => client.Metrics())

const readSpans = ({ threads }: World) =>
  Effect.gen(function*() {
    const own = yield* SpanRing.read
    const asked = yield* Effect.forEach(threads.values(), (thread) =>
      Effect.flatMap(hostOf(thread), ({ client }) =>
        client.Spans()).pipe(
          Effect.timeout(RuntimeMetrics.DEADLINE),
          Effect.map((snapshot) => [[thread.name, snapshot] as const]),
          Effect.catchAllCause(() => Effect.succeed([]))
        ), { concurrency: "unbounded" })
    return Object.fromEntries([["main", own] as const, ...asked.flat()])
  })

const notUp = ({ threads }: World, atLeast: Duration.Duration) =>
  Effect.map(
    nowMs,
    (now) =>
      [...threads.values(), ...[...threads.values()].flatMap(({ actors }) => actors)].flatMap((entry) => {
        const downMs = entry.downSinceMs === null ? -1 : now - entry.downSinceMs
        if (entry.isOptional || downMs < Duration.toMillis(atLeast)) return []
        const why = entry.lastError === null ? "" : `; last error: ${entry.lastError.split("\n")[0]}`
        return [`${entry.kind} ${entry.name} has not been up for ${Math.round(downMs / 1000)} s (${entry.state}${why})`]
      })
  )

const runThread = (world: World, thread: ThreadEntry): Effect.Effect<never> =>
  Effect.gen(function*() {
    thread.incarnation++
    yield* mark(world, thread, "starting", null)
    const gone = yield* Deferred.make<void>()
    const why = yield* hostThread(world, thread, gone).pipe(Effect.scoped, Effect.merge, orDefect)
    // If the thread died before it was up, its actors still wait for this same `Deferred`.
    if (yield* Deferred.isDone(thread.host)) thread.host = yield* Deferred.make<Host>()
    thread.running = null
    thread.health = null
    yield* Deferred.succeed(gone, undefined)
    yield* backOff(world, thread, why)
  }).pipe(Effect.forever)

/**
 * Turns a defect of one incarnation into a reason, because it must not end the loop that starts the
 * next one. An interruption of the loop itself does not run this handler.
 */
const orDefect = <E, R>(why: Effect.Effect<string, E, R>): Effect.Effect<string, E, R> =>
  Effect.catchAllDefect(why, (defect) => Effect.succeed(`internal error: ${Cause.pretty(Cause.die(defect))}`)).pipe(
    Effect.catchSomeCause((cause) =>
      Cause.isInterruptedOnly(cause) ? Option.some(Effect.succeed("it was interrupted")) : Option.none()
    )
  )

/** Runs one incarnation of a thread. Fails or succeeds with why it ended. */
const hostThread = Effect.fnUntraced(function*(world: World, entry: ThreadEntry, gone: Deferred.Deferred<void>) {
  entry.life = Liveness.start(yield* nowMs)
  const thread = yield* world.spawn(entry.name)
  const connection = yield* MessagePortProtocol.makeClient(thread.control)
  const client = yield* RpcClient.make(ThreadRpcs, { disableTracing: true }).pipe(
    Effect.provideService(RpcClient.Protocol, connection.protocol)
  )
  // This runs before the client ends, so that calls in flight fail.
  yield* Effect.addFinalizer(() => connection.hangUp)
  entry.running = thread
  yield* Effect.addFinalizer((exit) =>
    Exit.isInterrupted(exit)
      ? client.Shutdown(undefined, { discard: true }).pipe(
        Effect.zipRight(thread.ended),
        Effect.interruptible,
        Effect.timeout(world.deadlines.stop),
        Effect.ignore
      )
      : Effect.void
  )
  const portClosed = Effect.as(
    Effect.zipRight(connection.closed, Effect.sleep(PORT_CLOSED_GRACE)),
    "its control port closed"
  )
  const ended = Effect.raceFirst(thread.ended, portClosed)
  const ask = Effect.tap(untilGone(client.Health()), () =>
    Effect.sync(() => {
      entry.life = Liveness.onAnswer(entry.life)
    }))
  const onHealth = (health: Health) =>
    Effect.sync(() => {
      entry.health = health
      world.metrics.onHealth(entry.name, health)
    })
  const work = Effect.gen(function*() {
    yield* ask
    yield* mark(world, entry, "up", null)
    yield* Deferred.succeed(entry.host, { client, gone })
    const deaths = untilGone(Stream.runForEach(client.Deaths(), (death) => tellDeath(world, death)))
    const health = Effect.forever(Effect.delay(Effect.flatMap(ask, onHealth), HEALTH_INTERVAL))
    return yield* Effect.all([health, deaths], { concurrency: 2, discard: true })
  })
  return yield* Effect.zipRight(work, Effect.never).pipe(
    Effect.raceFirst(ended),
    Effect.raceFirst(judge(world, entry, thread))
  )
})

/**
 * Fails with the reason when the thread must be ended, because it took too long to boot or is dead.
 */
const judge = (world: World, entry: ThreadEntry, { pulse }: Thread): Effect.Effect<never, string> => {
  const limitMs = Duration.toMillis(world.deadlines.health)
  const bootMs = Duration.toMillis(world.deadlines.boot)
  const look = Effect.map(nowMs, (now) => {
    entry.life = Liveness.onReading(entry.life, pulse.read(), now)
    if (entry.state === "up") return Liveness.verdict(entry.life, limitMs)
    return entry.life.givenMs >= bootMs ? "it did not answer within the boot deadline" : null
  })
  const confirm = (why: string | null) => why === null ? Effect.succeed(null) : Effect.delay(look, LAST_CHANCE)
  return Effect.delay(Effect.flatMap(look, confirm), Liveness.SAMPLE_MS).pipe(
    Effect.flatMap((why) => why === null ? Effect.void : Effect.fail(why)),
    Effect.forever
  )
}

/** Waits until the thread has run or slept for this long. */
const afterGiven = (thread: ThreadEntry, duration: Duration.DurationInput): Effect.Effect<void> =>
  Effect.suspend(() => {
    const untilMs = thread.life.givenMs + Duration.toMillis(duration)
    return Effect.asVoid(Effect.repeat(Effect.sleep(BOOT_LOOK), { until: () => thread.life.givenMs >= untilMs }))
  })

/**
 * Waits permanently instead of failing, if a call to a thread fails because the thread is going.
 * The reason is reported elsewhere. A call that somebody else interrupted is treated alike: this
 * handler is not run when the caller itself is interrupted.
 */
const untilGone = <A, E, R>(
  call: Effect.Effect<A, E | RpcClientError, R>
): Effect.Effect<A, Exclude<E, RpcClientError>, R> =>
  Effect.catchSomeCause(call, (cause) => isGoing(cause) ? Option.some(Effect.never) : Option.none()) as Effect.Effect<
    A,
    Exclude<E, RpcClientError>,
    R
  >

const isGoing = (cause: Cause.Cause<unknown>): boolean =>
  Cause.isInterruptedOnly(cause) ||
  Option.exists(Cause.failureOption(cause), (error) => error instanceof RpcClientError)

const tellDeath = (world: World, { incarnation, message, name }: Death) => {
  const actor = world.actors.get(name)
  return actor?.incarnation === incarnation ? Deferred.succeed(actor.died, message) : Effect.void
}

const runActor = (world: World, actor: ActorEntry): Effect.Effect<never> =>
  Effect.gen(function*() {
    const host = yield* Deferred.await(actor.thread.host)
    const why = yield* Effect.raceFirst(
      orDefect(incarnate(world, actor, host)),
      Effect.as(Deferred.await(host.gone), null)
    )
    actor.loaded = null
    if (why === null) {
      actor.restarts++
      return yield* mark(world, actor, actor.thread.state === "gave_up" ? "gave_up" : "waiting", "its thread died")
    }
    yield* backOff(world, actor, why)
  }).pipe(Effect.forever)

/** Runs one incarnation of an actor. Succeeds with why it ended, unless its thread ended first. */
const incarnate = Effect.fnUntraced(function*(world: World, actor: ActorEntry, host: Host) {
  const { spec: { config, uses } } = actor
  const which = { name: actor.name, incarnation: ++actor.incarnation }
  actor.died = yield* Deferred.make<string>()
  yield* mark(world, actor, "starting", null)
  const boot = Effect.gen(function*() {
    yield* host.client.Load({ ...which, uses: uses.map(({ name }) => name) })
    actor.loaded = host
    for (const used of uses) yield* connectIfUp(world, actor, world.actors.get(used.name))
    yield* host.client.Start({ ...which, config })
  })
  const late = new NotStarted({ actor: actor.name, reason: "timed_out", message: "not up within the boot deadline" })
  yield* Effect.raceFirst(
    untilGone(boot),
    Effect.zipRight(afterGiven(actor.thread, world.deadlines.boot), Effect.fail(late))
  )
  yield* mark(world, actor, "up", null)
  yield* Deferred.succeed(actor.firstUp, undefined)
  yield* connectMain(world, actor, host)
  for (const caller of world.actors.values()) {
    if (caller.spec.uses.some(({ name }) => name === actor.name)) yield* connectIfUp(world, caller, actor)
  }
  return yield* Deferred.await(actor.died)
}, Effect.catchTag("NotStarted", (error) => Effect.succeed(`${error.reason}: ${error.message}`)))

const connectIfUp = (world: World, caller: ActorEntry, callee: ActorEntry | undefined) => {
  const at = caller.loaded
  if (at === null || callee === undefined) return Effect.void
  if (callee.state === "gave_up") return tellGaveUp(world, at, callee.name)
  if (callee.state !== "up" || callee.loaded === null) return Effect.void
  const { incarnation, name } = caller
  const peer = { peer: callee.name, peerIncarnation: callee.incarnation }
  return connect(world, callee, callee.loaded, (port) => at.client.Connect({ name, incarnation, ...peer, port }))
}

const connectMain = (world: World, callee: ActorEntry, host: Host) =>
  connect(world, callee, host, (port) => callee.main.link.connect(port, callee.incarnation))

/** Makes a channel and hands one end to the called actor and the other to a caller. */
const connect = (
  world: World,
  { incarnation, name }: ActorEntry,
  host: Host,
  giveToCaller: (port: MessagePort) => Effect.Effect<void, RpcClientError>
) =>
  Effect.suspend(() => {
    const { port1, port2 } = new MessageChannel()
    return Effect.all([host.client.Serve({ name, incarnation, port: port2 }), giveToCaller(port1)], { concurrency: 2 })
      .pipe(
        // Closing an end that was not handed over closes both. A thread that is only slow answers
        // in the end.
        Effect.catchAllCause(() => Effect.sync(() => (port1.close(), port2.close()))),
        Effect.forkIn(world.scope)
      )
  })

/** Waits for the next restart. If the policy gives up instead, it waits permanently. */
const backOff = Effect.fnUntraced(function*(world: World, entry: ThreadEntry | ActorEntry, why: string) {
  const now = yield* nowMs
  const upMs = entry.state === "up" ? now - entry.sinceMonotonicMs : 0
  const actors = "actors" in entry ? entry.actors : [entry]
  const wasUp = (yield* Effect.forEach(actors, ({ firstUp }) => Deferred.isDone(firstUp))).every((isDone) => isDone)
  const policy = entry.isOptional && wasUp ? { ...world.policy, max: OPTIONAL_MAX, limit: Infinity } : world.policy
  const next = Restart.next(policy, entry.row, { nowMs: now, upMs, wasUp, jitter: yield* Random.next })
  if (next._tag === "Restart") {
    entry.row = next.row
    entry.restarts++
    yield* mark(world, entry, "restarting", why)
    return yield* Effect.sleep(next.delayMs)
  }
  yield* mark(world, entry, "gave_up", why)
  for (const actor of actors) {
    if (actor !== entry) yield* mark(world, actor, "gave_up", why)
    yield* actor.main.link.giveUp
    for (const { host } of world.threads.values()) {
      const polled = yield* Deferred.poll(host)
      if (Option.isSome(polled)) {
        yield* Effect.flatMap(polled.value, ({ client }) => tellGaveUp(world, { client }, actor.name))
      }
    }
  }
  yield* Deferred.fail(world.gaveUp, new GaveUp({ what: `${entry.kind} ${entry.name}`, lastError: why }))
  return yield* Effect.never
})

const tellGaveUp = (world: World, { client }: Pick<Host, "client">, peer: string) =>
  Effect.forkIn(Effect.ignore(Effect.timeout(client.GiveUp({ peer }), world.deadlines.boot)), world.scope)

const stopActors = Effect.fnUntraced(function*(world: World) {
  const nodes = [...world.actors.values()].map(({ name, spec }) => ({ name, uses: spec.uses.map((used) => used.name) }))
  for (const name of StopOrder.callersFirst(nodes)) {
    const actor = world.actors.get(name)
    if (actor === undefined) continue
    if (actor.loaded !== null) {
      yield* actor.loaded.client.Stop({ name, incarnation: actor.incarnation }).pipe(
        Effect.interruptible,
        Effect.timeout(world.deadlines.stop),
        // This also covers a thread that is interrupted or ends meanwhile. The other actors must
        // still be stopped.
        Effect.catchAllCause((cause) => Effect.logWarning("actor did not stop in time", Cause.squash(cause))),
        Effect.annotateLogs({ actor: name })
      )
      actor.loaded = null
    }
    yield* mark(world, actor, "stopped", null)
  }
})

/**
 * Records and logs a new state. `message` is the error, which stays the entry's last error; with
 * `null` the last error stays as it was.
 */
const mark = Effect.fnUntraced(
  function*(world: World, entry: Status.Entry, state: Status.State, message: string | null) {
    entry.state = state
    entry.since = yield* Clock.currentTimeMillis
    entry.sinceMonotonicMs = yield* nowMs
    if (state === "up" || state === "stopped") entry.downSinceMs = null
    else entry.downSinceMs ??= entry.sinceMonotonicMs
    entry.lastError = message ?? entry.lastError
    const { incarnation, kind, name, since: at } = entry
    yield* PubSub.publish(world.events, { at, kind, name, state, incarnation, message })
    yield* log[state](`${kind} ${state}`, ...(message === null ? [] : [message])).pipe(
      Effect.annotateLogs({ [kind]: name, incarnation })
    )
  }
)

const log = {
  waiting: Effect.logWarning,
  starting: Effect.logDebug,
  up: Effect.logDebug,
  restarting: Effect.logWarning,
  gave_up: Effect.logError,
  stopped: Effect.logDebug
} as const

const threadStatus = (thread: ThreadEntry): Status.ThreadStatus => {
  const { actors = [], ...health } = thread.health ?? {}
  const queues = new Map(actors.map((it) => [it.name, it.queues]))
  return {
    ...Status.ofEntry(thread),
    health: thread.health === null ? null : health as Omit<Health, "actors">,
    actors: thread.actors.map((it) => ({ ...Status.ofEntry(it), queues: queues.get(it.name) ?? [] }))
  }
}
