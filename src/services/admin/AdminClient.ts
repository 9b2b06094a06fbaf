/** Client of the admin API of a sallyport that runs on this machine. */
import { Effect, Option, Schema } from "effect"
import { accessSync, constants } from "node:fs"
import { request as httpRequest, type RequestOptions } from "node:http"
import { dirname } from "node:path"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type { AdminEndpoint } from "../config/Config.ts"
import * as HostPort from "../config/HostPort.ts"
import { AdminCode } from "./AdminError.ts"

/** Error when no process serves the endpoint. `message` names the command that starts one. */
export class NotRunning extends Schema.TaggedError<NotRunning>()("NotRunning", { message: Schema.String }) {}

/**
 * Error when the running process or the system refused the request. `message` is for the operator.
 */
export class Refused extends Schema.TaggedError<Refused>()("Refused", {
  code: Schema.Union(AdminCode, Schema.Literal("no_permission", "bad_answer")),
  message: Schema.String
}) {}

/**
 * How long a request may take, in milliseconds. It is longer than the server's own limit, because
 * the server's message is more helpful.
 */
const TIMEOUT_MS = 35_000
/** Largest answer that is accepted, in bytes. A larger one ends the request. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024

/**
 * Sends a request and returns the decoded JSON of the answer, or its text if it is not JSON.
 * `configFile` is used only in messages.
 */
export const request = (
  admin: AdminEndpoint,
  method: "GET" | "POST" | "PUT" | "DELETE",
  path: string,
  body?: unknown,
  options?: { readonly configFile?: string }
): Effect.Effect<unknown, NotRunning | Refused> =>
  Effect.flatMap(
    send(admin, method, path, body === undefined ? "" : JSON.stringify(body), options?.configFile ?? "FILE"),
    decode
  )

type Answer = { readonly status: number; readonly json: boolean; readonly text: string }

const send = (
  admin: AdminEndpoint,
  method: string,
  path: string,
  body: string,
  configFile: string
): Effect.Effect<Answer, NotRunning | Refused> =>
  Effect.async((resume) => {
    const asked = httpRequest({
      ...target(admin),
      method,
      path,
      agent: false,
      timeout: TIMEOUT_MS,
      headers: {
        "content-length": Buffer.byteLength(body),
        ...(body === "" ? {} : { "content-type": "application/json" })
      }
    })
    asked.once("response", (response) => {
      const chunks: Array<Buffer> = []
      let bytes = 0
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length
        chunks.push(chunk)
        if (bytes > MAX_ANSWER_BYTES) asked.destroy()
      })
      response.once("end", () =>
        resume(Effect.succeed({
          status: response.statusCode ?? 0,
          json: /\bjson\b/.test(response.headers["content-type"] ?? ""),
          text: Buffer.concat(chunks).toString("utf8")
        })))
      response.once("error", (cause: NodeJS.ErrnoException) => resume(failure(cause, admin, configFile)))
    })
    asked.once("timeout", () => asked.destroy(new Error("timeout")))
    asked.once("error", (cause: NodeJS.ErrnoException) => resume(failure(cause, admin, configFile)))
    asked.end(body)
    return Effect.sync(() => asked.destroy())
  })

const target = (admin: AdminEndpoint): RequestOptions => {
  if (admin._tag === "Unix") return { socketPath: admin.path }
  // If the server listens on all addresses, ask it on the loopback address.
  return { host: HostPort.isUnspecified(admin.host) ? "localhost" : admin.host, port: admin.port }
}

const failure = (cause: NodeJS.ErrnoException, admin: AdminEndpoint, configFile: string) => {
  const place = admin._tag === "Unix" ? admin.path : renderHostPort(admin)
  if (cause.code === "ENOENT" || cause.code === "ECONNREFUSED") {
    return new NotRunning({
      message:
        `sallyport is not running (nothing answers on ${place}); start it with: sallyport run --config ${configFile}` +
        (admin._tag === "Unix" && isReadOnly(dirname(place))
          ? "; or it runs without its admin socket, because the disk of that folder is read-only"
          : "")
    })
  }
  return cause.code === "EACCES" || cause.code === "EPERM"
    ? new Refused({
      code: "no_permission",
      message: `no permission to use ${place}; run as the user that sallyport runs as`
    })
    : new Refused({
      code: "bad_answer",
      message: `no answer on ${place} (${
        cause.code ?? cause.message
      }); check the log of that process, and restart it if it hangs`
    })
}

const isReadOnly = (folder: string): boolean => {
  try {
    accessSync(folder, constants.W_OK)
    return false
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EROFS"
  }
}

const Problem = Schema.parseJson(Schema.Struct({ error: Schema.Struct({ code: AdminCode, message: Schema.String }) }))

const decode = ({ json, status, text }: Answer): Effect.Effect<unknown, Refused> => {
  if (status === 200) return json ? parse(text) : Effect.succeed(text)
  const { code, message } = Option.getOrElse(
    Option.map(Schema.decodeOption(Problem)(text), ({ error }) => error),
    () => ({
      code: "bad_answer" as const,
      message: `the admin API answered with status ${status}; is another program on its address?`
    })
  )
  return new Refused({ code, message })
}

const parse = (text: string): Effect.Effect<unknown, Refused> =>
  Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: () =>
      new Refused({
        code: "bad_answer",
        message: "the admin API answered with broken JSON; is another program on its address?"
      })
  })
