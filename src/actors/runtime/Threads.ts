/** Where actors run: each kind makes a thread that serves `ThreadRpcs` on a port, and tells when it is gone. */
import { Clock, Deferred, Duration, Effect, Fiber, Option, type Scope } from "effect"
import { MessageChannel, type ResourceLimits, Worker } from "node:worker_threads"
import type { Settings } from "../../services/Telemetry.ts"
import * as Liveness from "./Liveness.ts"
import type { Port } from "./Port.ts"
import * as Pulse from "./Pulse.ts"
import * as ThreadHost from "./ThreadHost.ts"

export interface Thread {
  readonly control: Port
  readonly pulse: Pulse.Pulse
  /** Why it ended, whoever ended it. */
  readonly ended: Effect.Effect<string>
  /** Ends it at once. */
  readonly kill: Effect.Effect<void>
}

/** The scope's end kills the thread and waits until it is gone. A failure says why it could not even be made. */
export type Spawn = (name: string) => Effect.Effect<Thread, string, Scope.Scope>

export interface WorkerOptions {
  /** A bundled file that calls `WorkerEntry.run`. */
  readonly entry: URL
  /** `maxYoungGenerationSizeMb` is what `--max-semi-space-size` (3 semi-spaces to a young generation) is for the main thread. */
  readonly resourceLimits?: ResourceLimits
  /** Node flags only: V8's are for the whole process and refused here. */
  readonly execArgv?: ReadonlyArray<string>
  readonly telemetry?: Settings
}

/** What a worker's parent posts to make it end itself. */
export const END = "end"

/** What the entry finds in `workerData`. */
export interface WorkerData {
  readonly control: Port
  readonly thread: string
  readonly telemetry: Settings | undefined
  /** For `Pulse.begin`. */
  readonly pulse: SharedArrayBuffer
}

export const workers = (options: WorkerOptions): Spawn => (thread) =>
  Effect.gen(function*() {
    const ended = yield* Deferred.make<string>()
    const shared = new SharedArrayBuffer(Pulse.SHARED_BYTES)
    const pulse = yield* Effect.acquireRelease(
      Effect.sync(() => Pulse.ofWorker(shared)),
      (pulse) => Effect.sync(() => pulse.close())
    )
    const { port1: control, port2 } = new MessageChannel()
    const workerData: WorkerData = { control: port2, thread, telemetry: options.telemetry, pulse: shared }
    const tell = (why: string) => Deferred.unsafeDone(ended, Effect.succeed(why))
    const kill = (worker: Worker) => end(worker, pulse, Deferred.await(ended))
    const worker = yield* Effect.acquireRelease(
      Effect.try({
        try: () =>
          pulse.starting(() =>
            new Worker(options.entry, {
              name: thread,
              workerData,
              transferList: [port2],
              resourceLimits: options.resourceLimits ?? {},
              ...(options.execArgv === undefined ? {} : { execArgv: [...options.execArgv] })
            })
          )
            .on("error", (error) => tell(describe(error)))
            .on("exit", (code) => tell(`the thread exited with code ${code}`)),
        catch: describe
      }),
      kill
    )
    return { control, pulse, ended: Deferred.await(ended), kill: kill(worker) }
  })

/** A thread whose event loop turns ends itself in far less; one that waits for a locked database, in a second. */
const END_DEADLINE_MS = 1500
const END_LOOK = Duration.millis(50)

/**
 * Asks the thread to end itself, between two turns of its event loop; stops it by force when it does not. Force alone may hit a
 * thread inside a native library's call, and one that is not prepared for that (neon, under libSQL) aborts the whole process.
 */
const end = (worker: Worker, pulse: Pulse.Pulse, ended: Effect.Effect<string>): Effect.Effect<void> =>
  Effect.sync(() => worker.postMessage(END)).pipe(
    Effect.zipRight(
      Effect.raceFirst(Effect.asSome(ended), Effect.as(given(pulse, END_DEADLINE_MS), Option.none())).pipe(
        Effect.interruptible
      )
    ),
    Effect.flatMap((told) => Option.isSome(told) ? Effect.void : Effect.promise(() => worker.terminate())),
    Effect.asVoid
  )

/** Waits until the thread has run or slept for this long. Time in which it waits for a processor does not count. */
const given = (pulse: Pulse.Pulse, ms: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    let life = Liveness.onReading(Liveness.start(yield* nowMs), pulse.read(), yield* nowMs)
    const from = life.givenMs
    while (life.givenMs - from < ms) {
      yield* Effect.sleep(END_LOOK)
      life = Liveness.onReading(life, pulse.read(), yield* nowMs)
    }
  })

/** What hangs in an actor's finalizers can't be ended without a thread: it is left behind after this. */
const HOST_RELEASE_DEADLINE = Duration.seconds(2)

/** No thread at all: for small hosts and for tests. A busy actor holds the others up, and `kill` still runs finalizers. */
export const inThread = (registry: ThreadHost.Registry): Spawn => () =>
  Effect.gen(function*() {
    const { port1: control, port2 } = new MessageChannel()
    const host = yield* Effect.acquireRelease(
      Effect.forkDaemon(Effect.interruptible(ThreadHost.run(registry, port2))),
      (host) =>
        Effect.zipRight(Fiber.interruptFork(host), Effect.interruptible(Fiber.await(host))).pipe(
          Effect.timeout(HOST_RELEASE_DEADLINE),
          Effect.ignore
        )
    )
    const ended = Effect.map(Fiber.await(host), () => "it was ended")
    return { control, pulse: Pulse.NONE, ended, kill: Effect.asVoid(Fiber.interrupt(host)) }
  })

const nowMs = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e6)

const describe = (cause: unknown) => (cause instanceof Error ? cause.stack ?? cause.message : String(cause))
