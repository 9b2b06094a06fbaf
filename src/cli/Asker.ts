/**
 * Client of the running sallyport's admin API. Finds the process by its configuration file and
 * decodes its answers.
 */
import { Effect, Schema } from "effect"
import * as AdminClient from "../services/admin/AdminClient.ts"
import * as Config from "../services/config/Config.ts"
import { CliError, EXIT_USAGE, failure, fromError } from "./CliError.ts"

/** Error text for an answer that does not match its schema. */
export const OTHER_VERSION = "the running sallyport answers in a way this version does not know; restart it"

/**
 * Asks one running process. A call fails if no process answers, or with `OTHER_VERSION` if the
 * answer does not match `schema`.
 */
export interface Asker {
  readonly config: Config.Config
  readonly get: <A, I>(path: string, schema: Schema.Schema<A, I>) => Effect.Effect<A, CliError>
  readonly post: <A, I>(path: string, body: unknown, schema: Schema.Schema<A, I>) => Effect.Effect<A, CliError>
}

/**
 * Loads a configuration file. Each line of the error begins with the mistake's place in the file.
 */
export const load = (file: string): Effect.Effect<Config.Config, CliError> =>
  Effect.mapError(Config.load(file), ({ message }) => new CliError({ message, exitCode: EXIT_USAGE, placed: true }))

/** Loads a configuration file and returns a client of the process that it describes. */
export const make = (file: string): Effect.Effect<Asker, CliError> =>
  Effect.map(load(file), (config) => {
    const ask = <A, I>(method: "GET" | "POST", path: string, body: unknown, schema: Schema.Schema<A, I>) =>
      AdminClient.request(config.admin, method, path, body, { configFile: file }).pipe(
        Effect.mapError(fromError),
        Effect.flatMap((answer) => Effect.mapError(Schema.decodeUnknown(schema)(answer), () => failure(OTHER_VERSION)))
      )
    return {
      config,
      get: (path, schema) => ask("GET", path, undefined, schema),
      post: (path, body, schema) => ask("POST", path, body, schema)
    }
  })

/** Whether output may have colours: stdout is a terminal and `NO_COLOR` is not set. */
export const hasColours = (): boolean => process.stdout.isTTY && process.env["NO_COLOR"] === undefined

/** Formats a time as `YYYY-MM-DD hh:mm:ss`, in UTC. */
export const timeOf = (epochMs: number): string => new Date(epochMs).toISOString().replace("T", " ").slice(0, 19)
