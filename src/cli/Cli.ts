/** Runs one command line and returns its exit code. Errors are written to stderr only here. */
import { CliConfig, Command, HelpDoc, ValidationError } from "@effect/cli"
import * as NodeContext from "@effect/platform-node/NodeContext"
import { Cause, type Console, Effect, Layer, Option } from "effect"
import pkg from "../../package.json" with { type: "json" }
import type { Backend } from "./Backend.ts"
import { type CliError, EXIT_INTERRUPTED, fromDefect, fromError, usage } from "./CliError.ts"
import { root } from "./Commands.ts"

const footer = HelpDoc.p("Every command takes --help. Also: --version, and --completions bash|zsh|fish.")

const parse = Command.run(root, { name: "sallyport", version: pkg.version, executable: "sallyport", footer })

const environment = Layer.merge(NodeContext.layer, CliConfig.layer({ showBuiltIns: false }))

/**
 * Runs the command that `args` names; `args` does not include the program's name. Never fails: an
 * error is printed and becomes the exit code, and interruption becomes `EXIT_INTERRUPTED`.
 */
export const main = (
  args: ReadonlyArray<string>,
  options: { readonly colours: boolean }
): Effect.Effect<number, never, Backend> =>
  Effect.consoleWith((console) =>
    parse(["node", "sallyport", ...args]).pipe(
      Effect.withConsole(forCommands(console, options.colours)),
      Effect.provide(environment),
      Effect.as(0),
      Effect.catchAllCause((cause) => report(cause, console))
    )
  )

const report = (cause: Cause.Cause<unknown>, console: Console.Console): Effect.Effect<number> => {
  if (Cause.isInterruptedOnly(cause)) return Effect.succeed(EXIT_INTERRUPTED)
  const error = Option.match(Cause.failureOption(cause), { onNone: () => fromDefect(cause), onSome: explain })
  const lines = error.message.split("\n").map((line) => error.placed ? line : `sallyport: ${line}`)
  return Effect.as(console.error(lines.join("\n")), error.exitCode)
}

const explain = (error: unknown): CliError => {
  if (!ValidationError.isValidationError(error)) return fromError(error)
  const text = plainText(HelpDoc.toAnsiText(error.error)).replaceAll(/\s+/g, " ").trim()
  return usage(`${text.replace(/[.;]$/, "")}${text.endsWith("?") ? " See" : "; see"} sallyport --help`)
}

/**
 * A console for the command-line parser. It drops the parser's own error output, because `report`
 * prints errors, and it removes colours where they are not wanted, because the parser always uses
 * them.
 */
const forCommands = (console: Console.Console, colours: boolean): Console.Console => ({
  ...console,
  error: () => Effect.void,
  log: (...values) =>
    console.log(...values.map((value) => typeof value === "string" && !colours ? plainText(value) : value))
})

// oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
const plainText = (text: string): string => text.replaceAll(/\u001B\[[\d;]*m/g, "")
