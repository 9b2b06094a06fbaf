/** Where actors run: each kind makes a thread that serves `ThreadRpcs` on a port, and tells when it is gone. */
import { Deferred, Duration, Effect, Fiber, Option, type Scope } from "effect"
import { MessageChannel, type ResourceLimits, Worker } from "node:worker_threads"
import type { Settings } from "../../services/Telemetry.ts"
import type { Port } from "./Port.ts"
import * as ThreadHost from "./ThreadHost.ts"

export interface Thread {
  readonly control: Port
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
}

export const workers = (options: WorkerOptions): Spawn => (thread) =>
  Effect.gen(function*() {
    const ended = yield* Deferred.make<string>()
    const { port1: control, port2 } = new MessageChannel()
    const workerData: WorkerData = { control: port2, thread, telemetry: options.telemetry }
    const worker = yield* Effect.acquireRelease(
      Effect.try({
        try: () =>
          new Worker(options.entry, {
            name: thread,
            workerData,
            transferList: [port2],
            resourceLimits: options.resourceLimits ?? {},
            ...(options.execArgv === undefined ? {} : { execArgv: [...options.execArgv] })
          }),
        catch: describe
      }),
      (worker) => end(worker, Deferred.await(ended))
    )
    const tell = (why: string) => Deferred.unsafeDone(ended, Effect.succeed(why))
    worker.on("error", (error) => tell(describe(error)))
    worker.on("exit", (code) => tell(`the thread exited with code ${code}`))
    return { control, ended: Deferred.await(ended), kill: end(worker, Deferred.await(ended)) }
  })

/** A thread whose event loop turns ends itself in far less; one that waits for a locked database, in a second. */
const END_DEADLINE = Duration.millis(1500)

/**
 * Asks the thread to end itself, between two turns of its event loop; stops it by force when it does not. Force alone may hit a
 * thread inside a native library's call, and one that is not prepared for that (neon, under libSQL) aborts the whole process.
 */
const end = (worker: Worker, ended: Effect.Effect<string>): Effect.Effect<void> =>
  Effect.sync(() => worker.postMessage(END)).pipe(
    Effect.zipRight(Effect.timeoutOption(Effect.interruptible(ended), END_DEADLINE)),
    Effect.flatMap((told) => Option.isSome(told) ? Effect.void : Effect.promise(() => worker.terminate())),
    Effect.asVoid
  )

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
    return { control, ended, kill: Effect.asVoid(Fiber.interrupt(host)) }
  })

const describe = (cause: unknown) => (cause instanceof Error ? cause.stack ?? cause.message : String(cause))
