/** Entry file of the program: starts the command, handles signals and sets the exit code. */
import { Effect, Exit, Fiber } from "effect"
import { FairScheduler } from "../actors/runtime/thread/FairScheduler.ts"
import { layer } from "./BackendLive.ts"
import * as Cli from "./Cli.ts"
import { EXIT_FAILURE, EXIT_INTERRUPTED, ofDefect } from "./CliError.ts"
import * as Commands from "./Commands.ts"
import * as StopLimit from "./StopLimit.ts"

const args = process.argv.slice(2)
const colours = process.stdout.isTTY && process.env["NO_COLOR"] === undefined

const say = (text: string) => process.stderr.write(`sallyport: ${text}\n`)

process.on("uncaughtException", (error) => {
  say(ofDefect(error))
  process.exit(EXIT_FAILURE)
})

// `Effect.never` keeps the process alive while a command waits for something that holds no handle.
const fiber = Effect.runFork(Effect.raceFirst(Cli.main(args, { colours }), Effect.never).pipe(Effect.provide(layer)), {
  scheduler: new FairScheduler()
})

const endsBySignal = Commands.endsBySignal(args)

// A reader such as `head` may close the pipe once it has its answer; the command then ends as if it
// had succeeded. A service keeps running: it must not end because its log cannot be written, and
// least of all with exit code 0.
process.stdout.on("error", () => {
  if (!endsBySignal) process.exit(0)
})
process.stderr.on("error", () => {})

/**
 * Ends the process once all its output has been taken. A pipe holds 64 KiB, and exiting drops the
 * output that still waits for room in it.
 */
const endWith = (code: number) => {
  process.stdout.write("", () => process.stderr.write("", () => process.exit(code)))
}

fiber.addObserver((exit) => {
  const code = Exit.isSuccess(exit) ? exit.value : EXIT_INTERRUPTED
  endWith(code === EXIT_INTERRUPTED && endsBySignal ? 0 : code)
})

/**
 * Signals within this time after the first are taken as the same one: npm forwards the Ctrl-C that
 * the terminal has already sent to the process.
 */
const SAME_SIGNAL_MS = 1_000
let stoppingSince = Infinity
const stop = () => {
  if (performance.now() - stoppingSince > SAME_SIGNAL_MS) process.exit(EXIT_INTERRUPTED)
  if (stoppingSince !== Infinity) return
  stoppingSince = performance.now()
  Effect.runFork(Fiber.interrupt(fiber))
  StopLimit.begin()
}
process.on("SIGTERM", stop)
process.on("SIGINT", stop)
