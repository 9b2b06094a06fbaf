/**
 * The kinds of threads on which actors run. Each kind makes a thread that serves `ThreadRpcs` on a
 * port and reports when it has ended.
 */
import { Deferred, Duration, Effect, Fiber, Option, type Scope } from "effect"
import { MessageChannel, type ResourceLimits, Worker } from "node:worker_threads"
import type { Settings } from "../../../services/telemetry/Telemetry.ts"
import { nowMs } from "../../../session/MonotonicClock.ts"
import * as Liveness from "../liveness/Liveness.ts"
import * as Pulse from "../liveness/Pulse.ts"
import type { Port } from "../port/Port.ts"
import * as ThreadHost from "./ThreadHost.ts"

/** A running thread. */
export interface Thread {
  /** Port for the supervisor's calls to the thread. */
  readonly control: Port
  /** Progress of the thread, which shows whether it hangs. */
  readonly pulse: Pulse.Pulse
  /** Waits until the thread has ended, for whatever reason, and returns why. */
  readonly ended: Effect.Effect<string>
  /** Ends the thread at once, without finalizers. */
  readonly kill: Effect.Effect<void>
}

/**
 * Makes a thread of this name. The end of the scope kills the thread and waits until it has ended.
 * A failure says why the thread could not be made.
 */
export type Spawn = (name: string) => Effect.Effect<Thread, string, Scope.Scope>

/** How to start a worker thread. */
export interface WorkerOptions {
  /** A bundled file that calls `WorkerEntry.run`. */
  readonly entry: URL
  /**
   * Memory limits of the thread. `maxYoungGenerationSizeMb` has the role that
   * `--max-semi-space-size` has for the main thread; a young generation is three semi-spaces.
   */
  readonly resourceLimits?: ResourceLimits
  /** Node flags only. V8's flags apply to the whole process and are refused here. */
  readonly execArgv?: ReadonlyArray<string>
  readonly telemetry?: Settings
}

/** Message by which the parent makes a worker end itself. */
export const END = "end"

/** Data that the parent gives to a worker's entry, as `workerData`. */
export interface WorkerData {
  readonly control: Port
  readonly thread: string
  readonly telemetry: Settings | undefined
  /** Shared memory for `Pulse.begin`. */
  readonly pulse: SharedArrayBuffer
}

/** Makes each thread a worker thread. */
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

/**
 * How long a thread gets to end itself. One whose event loop turns needs far less; one that waits
 * for a locked database needs a second.
 */
const END_DEADLINE_MS = 1500
const END_LOOK = Duration.millis(50)

/**
 * Asks the thread to end itself between two turns of its event loop, and stops it by force if it
 * does not. Force alone may stop a thread inside a call of a native library. A library that is not
 * prepared for that (neon, which libSQL uses) aborts the whole process.
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

/**
 * Waits until the thread has run or slept for this long. Time in which it waits for a processor
 * does not count.
 */
const given = (pulse: Pulse.Pulse, ms: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    let life = Liveness.onReading(Liveness.start(yield* nowMs), pulse.read(), yield* nowMs)
    const from = life.givenMs
    while (life.givenMs - from < ms) {
      yield* Effect.sleep(END_LOOK)
      life = Liveness.onReading(life, pulse.read(), yield* nowMs)
    }
  })

/**
 * How long to wait for finalizers that hang. Without a thread of their own they cannot be ended, so
 * they are left behind.
 */
const HOST_RELEASE_DEADLINE = Duration.seconds(2)

/**
 * Runs the actors on the calling thread, for small hosts and for tests. A busy actor delays the
 * others, and `kill` still runs finalizers.
 */
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

const describe = (cause: unknown) => (cause instanceof Error ? cause.stack ?? cause.message : String(cause))
