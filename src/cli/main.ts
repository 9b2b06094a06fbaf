/** The program's entry: signals, exit codes, and nothing else. */
import { Effect, Exit, Fiber } from "effect"
import { layer } from "./BackendLive.ts"
import * as Cli from "./Cli.ts"
import { EXIT_FAILURE, EXIT_INTERRUPTED } from "./CliError.ts"

/** How long a stop may take until the process ends anyway. */
const STOP_LIMIT = "5 seconds"

const args = process.argv.slice(2)
const colours = process.stdout.isTTY && process.env["NO_COLOR"] === undefined

const say = (text: string) => process.stderr.write(`sallyport: ${text}\n`)

process.on("uncaughtException", (error) => {
  say(`internal error: ${error instanceof Error ? error.message : String(error)}; please report it`)
  process.exit(EXIT_FAILURE)
})

// `never` keeps the process alive while a command waits for something that does not.
const fiber = Effect.runFork(Effect.raceFirst(Cli.main(args, { colours }), Effect.never).pipe(Effect.provide(layer)))

const COMMANDS = new Set(["run", "relay", "token", "node", "status", "path", "actors", "doctor", "netcheck", "demo"])
/** `run` and `demo` only end by a signal, so that is how they succeed. */
const command = args.find((arg) => COMMANDS.has(arg))
const endsBySignal = command === "run" || command === "demo"

// Whoever read an answer has left, as `head` does. A service goes on: it must not end, and least of all as if all were well,
// because its log cannot be written.
process.stdout.on("error", () => {
  if (!endsBySignal) process.exit(0)
})
process.stderr.on("error", () => {})

fiber.addObserver((exit) => {
  const code = Exit.isSuccess(exit) ? exit.value : EXIT_INTERRUPTED
  process.exit(code === EXIT_INTERRUPTED && endsBySignal ? 0 : code)
})

/** npm passes on the Ctrl-C that the terminal has sent already: a second signal so soon after the first is the same one. */
const SAME_SIGNAL_MS = 1_000
let stoppingSince = Infinity
const stop = () => {
  if (performance.now() - stoppingSince > SAME_SIGNAL_MS) process.exit(EXIT_INTERRUPTED)
  if (stoppingSince !== Infinity) return
  stoppingSince = performance.now()
  Effect.runFork(Fiber.interrupt(fiber))
  Effect.runFork(Effect.delay(
    Effect.sync(() => {
      say("could not stop within 5 s; ended at once, open flows are cut")
      process.exit(EXIT_FAILURE)
    }),
    STOP_LIMIT
  ))
}
process.on("SIGTERM", stop)
process.on("SIGINT", stop)
