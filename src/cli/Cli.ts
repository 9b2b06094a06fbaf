/** Runs one command line to its exit code. The only place that writes errors. */
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

/** `args` are those after the program's name. Never fails; interruption is told by `EXIT_INTERRUPTED`. */
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

/** The parser prints its own errors and always in colour: the first is `report`'s to do, the second only fits a terminal. */
const forCommands = (console: Console.Console, colours: boolean): Console.Console => ({
  ...console,
  error: () => Effect.void,
  log: (...values) =>
    console.log(...values.map((value) => typeof value === "string" && !colours ? plainText(value) : value))
})

// oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
const plainText = (text: string): string => text.replaceAll(/\u001B\[[\d;]*m/g, "")
