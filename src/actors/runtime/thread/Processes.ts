/**
 * Runs actors in a child process, for native libraries that may crash their process. The supervisor
 * treats it as a thread like any other (`Threads.Spawn`), and so do the actors. Messages to and
 * from it are copied, never transferred.
 */
import { Deferred, Effect } from "effect"
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { MessageChannel } from "node:worker_threads"
import type { Settings } from "../../../services/telemetry/Telemetry.ts"
import * as Pulse from "../liveness/Pulse.ts"
import * as IpcPorts from "../port/IpcPorts.ts"
import type { Spawn } from "./Threads.ts"

/** How to start a child process. */
export interface ProcessOptions {
  /** A bundled file that calls `ProcessEntry.run`. */
  readonly entry: URL
  /** Node flags, including V8's. The parent's own flags are not passed on. */
  readonly execArgv?: ReadonlyArray<string>
  readonly telemetry?: Settings
}

/**
 * First message to the child. It is not sent as arguments or environment, because other processes
 * can read those.
 */
export interface Begin {
  readonly thread: string
  readonly telemetry: Settings | undefined
}

/** Channel number of the control port. */
export const CONTROL = 0

/** Makes each thread a child process. */
export const processes = (options: ProcessOptions): Spawn => (thread) =>
  Effect.gen(function*() {
    const ended = yield* Deferred.make<string>()
    const { port1: control, port2 } = new MessageChannel()
    let why: string | null = null
    let ports: IpcPorts.IpcPorts | null = null
    let messages = 0
    const tell = (reason: string) => {
      ports?.close()
      Deferred.unsafeDone(ended, Effect.succeed(why ?? reason))
    }
    const child = yield* Effect.acquireRelease(
      Effect.try({
        try: () =>
          fork(fileURLToPath(options.entry), {
            execArgv: [...options.execArgv ?? []],
            serialization: "advanced",
            // Standard output belongs to the parent.
            stdio: ["ignore", 2, 2, "ipc"]
          })
            .on("error", (error) => tell(error.message))
            .on("exit", (code, signal) => tell(`the process ended with ${signal ?? `code ${code}`}`)),
        catch: String
      }),
      (child) => end(child, Deferred.await(ended))
    )
    // Without file descriptors there is neither a process nor a channel to it. `error` is then
    // emitted.
    if (child.pid === undefined) return yield* Effect.flatMap(Deferred.await(ended), Effect.fail)
    const pulse = yield* Effect.acquireRelease(
      Effect.sync(() => Pulse.ofChild(child.pid, () => messages)),
      (pulse) => Effect.sync(() => pulse.close())
    )
    const carrier = ports = IpcPorts.make("parent", {
      send: (message, done) => void child.send(message as Begin, done)
    }, (reason) => {
      why = reason
      child.kill("SIGKILL")
    })
    child.on("message", (message) => {
      messages++
      carrier.onMessage(message)
    })
    const begin: Begin = { thread, telemetry: options.telemetry }
    child.send(begin)
    carrier.open(CONTROL, port2)
    return { control, pulse, ended: Deferred.await(ended), kill: end(child, Deferred.await(ended)) }
  })

/**
 * Kills the process. If the finalizers of its actors are to run, it must be asked to shut down
 * before.
 */
const end = (child: ChildProcess, ended: Effect.Effect<string>): Effect.Effect<void> =>
  Effect.zipRight(Effect.sync(() => child.kill("SIGKILL")), Effect.asVoid(ended))
