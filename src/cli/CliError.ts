/** How a command fails: what it says on stderr, and the exit code. */
import { Cause, Option, Schema } from "effect"

/** Usage or configuration: nothing was done, and doing it again changes nothing. */
export const EXIT_USAGE = 2
export const EXIT_FAILURE = 1
/** Ended by Ctrl-C, as shells count it. */
export const EXIT_INTERRUPTED = 130

/** `message` is one line (or one a mistake) that says what to do next. */
export class CliError extends Schema.TaggedError<CliError>()("CliError", {
  message: Schema.String,
  exitCode: Schema.Literal(EXIT_FAILURE, EXIT_USAGE),
  /** True when the lines start with a place in a file, which editors only know at the start of a line. */
  placed: Schema.Boolean
}) {}

export const usage = (message: string) => new CliError({ message, exitCode: EXIT_USAGE, placed: false })
export const failure = (message: string) => new CliError({ message, exitCode: EXIT_FAILURE, placed: false })

/** Any other typed error of the program as an ordinary failure. */
export const fromError = (error: unknown): CliError => error instanceof CliError ? error : failure(messageOf(error))

/** A bug: the first line of its message, without its stack. */
export const fromDefect = (cause: Cause.Cause<unknown>): CliError => {
  const [line] = messageOf(Option.getOrElse(Cause.dieOption(cause), () => Cause.squash(cause))).split("\n")
  return failure(`internal error: ${line}; please report it`)
}

const messageOf = (error: unknown): string => error instanceof Error ? error.message || error.name : String(error)
