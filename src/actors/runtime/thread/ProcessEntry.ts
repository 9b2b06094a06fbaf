/** Entry of a child process that is nothing but a thread host. */
import { Cause, Effect, Exit } from "effect"
import { MessageChannel } from "node:worker_threads"
import * as Metrics from "../../../services/telemetry/Metrics.ts"
import * as Telemetry from "../../../services/telemetry/Telemetry.ts"
import * as IpcPorts from "../port/IpcPorts.ts"
import { FairScheduler } from "./FairScheduler.ts"
import { type Begin, CONTROL } from "./Processes.ts"
import * as ThreadHost from "./ThreadHost.ts"

/** Resident memory of this process, as a metric. */
const memoryOf = (thread: string) => [
  Metrics.gauge({
    name: "sallyport_child_process_memory_bytes",
    unit: "bytes",
    help: "Resident memory of the process that a thread's actors run in by themselves."
  }, [{ labels: { thread }, value: process.memoryUsage.rss() }])
]

/** Runs the thread host of this process. The process ends with it, and when the parent is gone. */
export const run = (registry: ThreadHost.Registry): void => {
  // Ctrl-C in a terminal and a stop by the service manager signal each process of the group. This
  // process ends only when its parent says so.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined)
  process.on("disconnect", () => process.exit(1)) // the parent is gone
  process.once("message", (first) => {
    const { telemetry, thread } = first as Begin
    const { port1: control, port2 } = new MessageChannel()
    const ports = IpcPorts.make("child", { send: (message, done) => void process.send?.(message, done) }, (why) => {
      process.stderr.write(`process ${thread} failed: ${why}\n`)
      process.exit(1)
    })
    process.on("message", ports.onMessage)
    ports.open(CONTROL, port2)
    const fiber = Effect.runFork(
      ThreadHost.run(registry, control, () => memoryOf(thread)).pipe(
        Effect.provide(Telemetry.layer(telemetry ?? Telemetry.DEFAULT, thread))
      ),
      { scheduler: new FairScheduler() }
    )
    fiber.addObserver((exit) => {
      if (Exit.isFailure(exit)) process.stderr.write(`process ${thread} failed: ${Cause.pretty(exit.cause)}\n`)
      process.exit(Exit.isSuccess(exit) ? 0 : 1)
    })
  })
}
