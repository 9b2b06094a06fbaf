/** Entry of a worker thread that is nothing but a thread host. */
import { Cause, Effect, Exit } from "effect"
import { parentPort, workerData } from "node:worker_threads"
import * as Telemetry from "../../../services/telemetry/Telemetry.ts"
import * as Pulse from "../liveness/Pulse.ts"
import { FairScheduler } from "./FairScheduler.ts"
import * as ThreadHost from "./ThreadHost.ts"
import { END, type WorkerData } from "./Threads.ts"

/** Runs the thread host of this worker. The thread ends with it. */
export const run = (registry: ThreadHost.Registry): void => {
  Pulse.begin()
  const { control, telemetry, thread } = workerData as WorkerData
  parentPort?.on("message", (message) => {
    // In a worker thread, this ends only the thread.
    if (message === END) process.exit(1)
  })
  parentPort?.unref()
  const fiber = Effect.runFork(
    ThreadHost.run(registry, control).pipe(Effect.provide(Telemetry.layer(telemetry ?? Telemetry.DEFAULT, thread))),
    { scheduler: new FairScheduler() }
  )
  fiber.addObserver((exit) => {
    if (Exit.isFailure(exit)) process.stderr.write(`thread ${thread} failed: ${Cause.pretty(exit.cause)}\n`)
    process.exit(Exit.isSuccess(exit) ? 0 : 1)
  })
}
