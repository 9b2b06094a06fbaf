/** Errors of commands: the message on stderr and the exit code. */
import { Cause, Option, Schema } from "effect"

/**
 * Exit code for wrong options or a wrong configuration. Nothing was done, and running the same
 * command again fails in the same way.
 */
export const EXIT_USAGE = 2
/** Exit code for every other failure. */
export const EXIT_FAILURE = 1
/** Exit code after Ctrl-C: 128 plus the number of SIGINT, as shells report it. */
export const EXIT_INTERRUPTED = 130

/**
 * Error that ends a command. `message` says what to do next; it is one line, or one line for each
 * mistake in a file.
 */
export class CliError extends Schema.TaggedError<CliError>()("CliError", {
  message: Schema.String,
  exitCode: Schema.Literal(EXIT_FAILURE, EXIT_USAGE),
  /**
   * Whether each line starts with a place in a file (`file:line:column`). Such lines are printed
   * without a prefix, because editors find the place only at the start of a line.
   */
  placed: Schema.Boolean
}) {}

/** An error with exit code 2: wrong options or a wrong configuration. */
export const usage = (message: string) => new CliError({ message, exitCode: EXIT_USAGE, placed: false })
/** An error with exit code 1. */
export const failure = (message: string) => new CliError({ message, exitCode: EXIT_FAILURE, placed: false })

/** Turns any other typed error of the program into an ordinary failure. */
export const fromError = (error: unknown): CliError => error instanceof CliError ? error : failure(messageOf(error))

/** Turns a bug into a failure that shows the first line of its message, without the stack. */
export const fromDefect = (cause: Cause.Cause<unknown>): CliError =>
  failure(ofDefect(Option.getOrElse(Cause.dieOption(cause), () => Cause.squash(cause))))

/**
 * One line for an error that no code expects. Errors of the system's limit of open files (EMFILE,
 * ENFILE) are no bugs: their line says which limit to raise.
 */
export const ofDefect = (error: unknown): string => {
  const [line] = messageOf(error).split("\n")
  return /\b(EMFILE|ENFILE)\b/.test(line ?? "")
    ? `too few files and sockets may be open to start (${line}); raise the limit: ulimit -n 1024, or LimitNOFILE= of the unit`
    : `internal error: ${line}; please report it`
}

const messageOf = (error: unknown): string => error instanceof Error ? error.message || error.name : String(error)
