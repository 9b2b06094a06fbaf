/** Where actors run: each kind makes a thread that serves `ThreadRpcs` on a port, and tells when it is gone. */
import { Deferred, Duration, Effect, Fiber, type Scope } from "effect"
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
      (worker) => Effect.promise(() => worker.terminate())
    )
    const end = (why: string) => Deferred.unsafeDone(ended, Effect.succeed(why))
    worker.on("error", (error) => end(describe(error)))
    worker.on("exit", (code) => end(`the thread exited with code ${code}`))
    const kill = Effect.asVoid(Effect.promise(() => worker.terminate()))
    return { control, ended: Deferred.await(ended), kill }
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
    return { control, ended, kill: Effect.asVoid(Fiber.interrupt(host)) }
  })

const describe = (cause: unknown) => (cause instanceof Error ? cause.stack ?? cause.message : String(cause))
