/**
 * The configuration of one process. It is read from a YAML file or taken from an object, checked as
 * a whole, and completed with absolute paths and defaults. All mistakes are reported at once, each
 * with its place.
 */
import { Effect, Either, Redacted, Schema } from "effect"
import { constants } from "node:fs"
import { access, readFile } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import type { NodeRole } from "../../protocol/trust/Documents.ts"
import * as Checks from "./Checks.ts"
import { ConfigError, type ConfigIssue, describe, type Finding, nearest, renderPath, sentence } from "./ConfigIssue.ts"
import {
  type Client,
  type ConfigFile,
  type Connector,
  type Forwarder,
  keysOf,
  type Kind,
  ofKind,
  type Relay,
  type Role,
  ROLES
} from "./ConfigSchema.ts"
import { explain } from "./Explain.ts"
import * as HostPort from "./HostPort.ts"
import { plain } from "./Plain.ts"
import * as YamlSource from "./YamlSource.ts"

export { ConfigError } from "./ConfigIssue.ts"

/** Address of a process's admin API: a Unix socket, or a TCP address. */
export type AdminEndpoint =
  | { readonly _tag: "Unix"; readonly path: string }
  | {
    readonly _tag: "Tcp"
    readonly host: string
    readonly port: number
    readonly allowRemote: boolean
    /** Additional host names that clients may use in requests, in lower case. */
    readonly allowHosts: ReadonlyArray<string>
  }

/**
 * The proxy's URL, which may contain a login, or `none`. `null` if environment variables decide.
 */
export type ProxySetting = Redacted.Redacted | null

/** The enrolment token itself, or where to read it. */
export type TokenSource = Redacted.Redacted | { readonly file: string } | { readonly env: string }

type Settled<A> = Omit<A, "admin" | "telemetry"> & {
  readonly admin: AdminEndpoint
  readonly telemetry: { readonly otlp: string | null; readonly sample: number }
}

/** Checked configuration of a relay that holds the directory, with absolute paths and defaults. */
export type RelayConfig = Settled<Omit<typeof Relay.Type, "advertise" | "tls" | "behindProxy">> & {
  /**
   * Public host name and ports. A port of 0 stands for the port that the system gave to `listen`.
   */
  readonly advertise: { readonly host: string; readonly https: number; readonly udp: number }
  readonly tls: { readonly cert: string; readonly key: string } | null
  readonly behindProxy: { readonly from: ReadonlyArray<string> } | null
}
/**
 * Checked configuration of a relay that has joined another one, with absolute paths and defaults.
 * In the file its role is `relay`, and the key `join` marks it.
 */
export type ForwarderConfig = Settled<Omit<typeof Forwarder.Type, "role" | "join" | "advertise" | "proxy" | "ca">> & {
  readonly role: "forwarder"
  readonly proxy: ProxySetting
  readonly ca: string | null
  /** Token for joining. It is needed only until the relay has joined. */
  readonly token: TokenSource
  readonly advertise: { readonly host: string; readonly udp: number }
}
type Node<A> = Settled<Omit<A, "token" | "proxy" | "ca">> & {
  readonly proxy: ProxySetting
  /** PEM file of authorities beside the public ones. `null` if there is none. */
  readonly ca: string | null
  readonly token: TokenSource | null
  readonly telemetry: { readonly report: boolean }
}
/** Checked configuration of a connector, with absolute paths and defaults. */
export type ConnectorConfig = Node<typeof Connector.Type>
/** Checked configuration of a client, with absolute paths and defaults. */
export type ClientConfig = Node<Omit<typeof Client.Type, "socks5">> & { readonly socks5: HostPort.HostPort | null }
/** Checked configuration of a connector or a client, with absolute paths and defaults. */
export type NodeConfig = ConnectorConfig | ClientConfig
/** Checked configuration of any role, with absolute paths and defaults. */
export type Config = RelayConfig | ForwarderConfig | NodeConfig

/**
 * Configuration of a role as an object, instead of a YAML file. It has the same keys, values and
 * defaults as the files in `config/`. All mistakes in it are reported at once.
 */
export type ConfigInput = typeof ConfigFile.Encoded

/** Largest configuration file, in bytes. It is a thousand times the usual size. */
export const MAX_FILE_BYTES = 1024 * 1024

/**
 * Reads and checks a configuration file, and fills in defaults and absolute paths. Relative paths
 * in it start at the file's folder. Fails with all mistakes at once; never dies.
 */
export const load: (file: string) => Effect.Effect<Config, ConfigError> = Effect.fn("Config.load")(function*(file) {
  const text = yield* read(file)
  const source = YamlSource.parse(text)
  const at = (place: YamlSource.Place, key: string, message: string): ConfigIssue => ({ file, ...place, key, message })
  const faults = source.problems.map(({ message, place }) => at(place, "", message))
  if (!source.readable) return yield* new ConfigError({ issues: faults })
  const checked = inspect(source.value, dirname(resolve(file)))
  const findings = Either.isLeft(checked) ? checked.left : yield* missingFiles(checked.right)
  const issues = [
    ...faults,
    ...findings.map((finding) => at(source.locate(finding), renderPath(finding.path), finding.message))
  ]
  if (Either.isLeft(checked) || issues.length > 0) return yield* new ConfigError({ issues: inOrder(issues) })
  return checked.right
})

/**
 * Checks a configuration object, and fills in defaults and absolute paths. Relative paths start at
 * `baseDir`, and mistakes have no line number. Never dies.
 */
export const decode = (value: unknown, options: { readonly baseDir: string }): Effect.Effect<Config, ConfigError> =>
  Either.mapLeft(
    Either.flatMap(plain(value), (copy) => inspect(copy, options.baseDir)),
    (findings) =>
      new ConfigError({
        issues: findings.map(({ message, path }) => ({
          file: null,
          line: null,
          column: null,
          key: renderPath(path),
          message
        }))
      })
  )

/** Error when the token cannot be read. `message` says where it was expected and what to do. */
export class TokenError extends Schema.TaggedError<TokenError>()("TokenError", { message: Schema.String }) {}

/**
 * Returns the enrolment token of a node that has not enrolled yet. It reads the file or the
 * environment at each call.
 */
export const resolveToken = (config: {
  readonly name: string
  readonly role: NodeRole
  readonly token: TokenSource | null
}): Effect.Effect<Redacted.Redacted, TokenError> => {
  const { name, role, token } = config
  const create =
    `create one at the relay with: sallyport token create --config relay.yaml --role ${role} --name ${name}`
  if (token === null) return fail(`${name} has not enrolled and its configuration has no token; ${create}`)
  if (Redacted.isRedacted(token)) return Effect.succeed(token)
  if ("env" in token) {
    const text = (process.env[token.env] ?? "").trim()
    return text === ""
      ? fail(`the environment variable ${token.env} holds no token; ${create}`)
      : Effect.succeed(Redacted.make(text))
  }
  return Effect.tryPromise(() => readFile(token.file, "utf8")).pipe(
    Effect.catchAll(({ error }) => fail(`cannot read the token file ${token.file} (${codeOf(error)}); ${create}`)),
    Effect.flatMap((text) =>
      text.trim() === ""
        ? fail(`the token file ${token.file} is empty; ${create}`)
        : Effect.succeed(Redacted.make(text.trim()))
    )
  )
}

const fail = (message: string) => Effect.fail(new TokenError({ message }))

const read = (file: string): Effect.Effect<string, ConfigError> => {
  const whole = (message: string) =>
    Effect.fail(new ConfigError({ issues: [{ file, line: null, column: null, key: "", message }] }))
  return Effect.tryPromise(() => readFile(file)).pipe(
    Effect.catchAll(({ error }) =>
      whole(
        UNREADABLE[codeOf(error)] ?? `cannot read the file (${codeOf(error)}); expected a YAML file; check --config`
      )
    ),
    Effect.filterOrElse(
      (bytes) => bytes.length <= MAX_FILE_BYTES,
      (bytes) =>
        whole(
          sentence(
            `the file has ${bytes.length} bytes`,
            `at most ${MAX_FILE_BYTES}`,
            "check that --config names the right file"
          )
        )
    ),
    Effect.flatMap((bytes) =>
      Effect.try(() => new TextDecoder("utf-8", { fatal: true }).decode(bytes)).pipe(
        Effect.catchAll(() => whole("the file is not text in UTF-8; expected a YAML file; save it as UTF-8"))
      )
    )
  )
}

const UNREADABLE: { readonly [code: string]: string } = {
  ENOENT: "no such file; expected a YAML file; check --config, or begin with a commented example from config/",
  EISDIR: "found a folder; expected a YAML file; name the file in it",
  EACCES: "no permission to read the file; expected a readable YAML file; run as its owner, or change its mode"
}

const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : "unknown error"

/**
 * Checks everything that can be checked without reading other files, and settles the configuration.
 */
const inspect = (value: unknown, baseDir: string): Either.Either<Config, ReadonlyArray<Finding>> => {
  if (value === null || value === undefined) return Either.left([atTop("found nothing: the file is empty")])
  if (typeof value !== "object" || Array.isArray(value)) return Either.left([atTop(`found ${describe(value, true)}`)])
  const { finding, role } = roleOf(value as Readonly<Record<string, unknown>>)
  const kind = role === "relay" && "join" in value ? "forwarder" : role
  const decoded = Schema.decodeUnknownEither(ofKind(kind))({ ...value, role }, {
    errors: "all",
    onExcessProperty: "error"
  })
  const found = Either.isLeft(decoded) ? explain(decoded.left.issue, elsewhere(kind)) : []
  const crossed = Checks.check(kind, value, baseDir)
  if (finding !== undefined) {
    // The role is a guess, so keys that are missing or unknown under it may be right under another
    // role.
    return Either.left([finding, ...[...found, ...crossed].filter(({ at }) => at === "value")])
  }
  return Either.isRight(decoded) && crossed.length === 0
    ? Either.right(settle(decoded.right, baseDir))
    : Either.left([...found, ...crossed])
}

const atTop = (found: string): Finding => ({
  path: [],
  at: "value",
  message: sentence(found, "a mapping of keys, role first", "begin with a commented example from config/")
})

const roleOf = (value: Readonly<Record<string, unknown>>): { readonly role: Role; readonly finding?: Finding } => {
  const found = value["role"]
  const known = ROLES.find((role) => role === found)
  if (known !== undefined) return { role: known }
  const role = "listen" in value || "resources" in value
    ? "relay"
    : "socks5" in value || "forwards" in value
    ? "client"
    : "connector"
  const close = typeof found === "string" ? nearest(found, ROLES) : undefined
  const remedy = close === undefined ? `write for example role: ${role}` : `did you mean ${close}?`
  return {
    role: ROLES.find((name) => name === close) ?? role,
    finding: {
      path: ["role"],
      at: "role" in value ? "value" : "parent",
      message: sentence(
        "role" in value ? `found ${describe(found, false)}` : "the key is missing",
        `one of ${ROLES.join(", ")}`,
        remedy
      )
    }
  }
}

const elsewhere = (kind: Kind) => (key: string): readonly [string, string] | undefined => {
  if (kind === "forwarder" && keysOf("relay").includes(key)) {
    return ["a key of a relay with join", "remove it, since it belongs to the relay that this one joins"]
  }
  const homes = ROLES.filter((other) => other !== kind && keysOf(other).includes(key))
  return homes.length === 0
    ? undefined
    : [
      `a key of role ${kind === "forwarder" ? "relay" : kind}`,
      `remove it, since it belongs to role ${homes.join(" and ")}`
    ]
}

const settle = (file: ConfigFile, baseDir: string): Config => {
  const absolute = (path: string) => resolve(baseDir, path)
  const stateDir = absolute(file.stateDir)
  const shared = { stateDir, admin: adminOf(file.admin, stateDir, absolute), telemetry: telemetryOf(file.telemetry) }
  const tokenOf = (token: TokenSource) =>
    Redacted.isRedacted(token) || "env" in token ? token : { file: absolute(token.file) }
  const caOf = ({ ca }: { readonly ca?: string }) => ca === undefined ? null : absolute(ca)
  if ("join" in file) {
    const { join, ...rest } = file
    const advertise = { udp: file.listen.udp.port, ...file.advertise }
    return {
      ...rest,
      ...shared,
      role: "forwarder",
      token: tokenOf(join),
      proxy: file.proxy ?? null,
      ca: caOf(file),
      advertise
    }
  }
  if (file.role === "relay") {
    const { https, udp } = file.listen
    const advertise = { https: https.port, udp: udp.port, ...file.advertise }
    const tls = file.tls === undefined ? null : { cert: absolute(file.tls.cert), key: absolute(file.tls.key) }
    return { ...file, ...shared, advertise, tls, behindProxy: file.behindProxy ?? null }
  }
  const token = file.token === undefined ? null : tokenOf(file.token)
  const own = { ...shared, token, proxy: file.proxy ?? null, ca: caOf(file), telemetry: telemetryOf(file.telemetry) }
  return file.role === "client" ? { ...file, ...own, socks5: file.socks5 ?? null } : { ...file, ...own }
}

const telemetryOf = <A extends ConfigFile["telemetry"]>(telemetry: A) => ({
  ...telemetry,
  otlp: telemetry.otlp ?? null
})

const adminOf = (admin: ConfigFile["admin"], stateDir: string, absolute: (path: string) => string): AdminEndpoint => {
  if (admin === undefined) return { _tag: "Unix", path: Checks.defaultSocket(stateDir) }
  if (typeof admin !== "string") {
    const { allowHosts, allowRemote, listen } = admin
    return { _tag: "Tcp", ...listen, allowRemote, allowHosts: allowHosts.map((name) => name.toLowerCase()) }
  }
  if (admin.startsWith("unix:")) return { _tag: "Unix", path: absolute(admin.slice(5)) }
  return { _tag: "Tcp", ...Either.getOrThrow(HostPort.parse(admin)), allowRemote: false, allowHosts: [] }
}

/** Checks that the operator's certificate files can be read before the start. */
const missingFiles = (config: Config): Effect.Effect<ReadonlyArray<Finding>> => {
  const files: ReadonlyArray<readonly [path: ReadonlyArray<string>, file: string]> = config.role !== "relay"
    ? config.ca === null ? [] : [[["ca"], config.ca]]
    : config.tls === null
    ? []
    : [[["tls", "cert"], config.tls.cert], [["tls", "key"], config.tls.key]]
  return Effect.forEach(files, ([path, file]) =>
    Effect.tryPromise(() => access(file, constants.R_OK)).pipe(
      Effect.as([]),
      Effect.catchAll(({ error }) =>
        Effect.succeed([{
          path,
          at: "value" as const,
          message: sentence(
            `cannot read ${file} (${codeOf(error)})`,
            "a readable PEM file",
            "correct the path or the file's mode"
          )
        }])
      )
    )).pipe(Effect.map((found) => found.flat()))
}

const inOrder = (issues: ReadonlyArray<ConfigIssue>): ReadonlyArray<ConfigIssue> =>
  issues.toSorted((left, right) => (left.line ?? 0) - (right.line ?? 0) || (left.column ?? 0) - (right.column ?? 0))
