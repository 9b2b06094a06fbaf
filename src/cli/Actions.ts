/**
 * The work of each command: checks the options, asks the backend and prints the answer to stdout.
 */
import { Console, Duration, Effect, Either, Schema } from "effect"
import { constants } from "node:fs"
import { access, mkdir, open, readdir } from "node:fs/promises"
import { join, resolve } from "node:path"
import * as HostName from "../protocol/bytes/HostName.ts"
import { NetReport } from "../protocol/nat/NatReport.ts"
import { isDirect } from "../protocol/path/PathKind.ts"
import * as DirectoryTime from "../protocol/trust/DirectoryTime.ts"
import * as AdminClient from "../services/admin/AdminClient.ts"
import type * as Config from "../services/config/Config.ts"
import { NAME_RULE } from "../services/config/ConfigSchema.ts"
import * as HostPort from "../services/config/HostPort.ts"
import * as Asker from "./Asker.ts"
import { Backend, type LogFormat } from "./Backend.ts"
import { type CliError, failure, fromError, usage } from "./CliError.ts"
import * as RelayTemplate from "./RelayTemplate.ts"
import * as NetcheckTable from "./show/NetcheckTable.ts"
import * as StatusHead from "./show/StatusHead.ts"
import { bytes, colour, table } from "./show/Table.ts"

const loadRelay = (file: string): Effect.Effect<Config.RelayConfig, CliError> =>
  Effect.flatMap(Asker.load(file), (config) =>
    config.role === "relay"
      ? Effect.succeed(config)
      : usage(
        `${file} is the configuration of a ${config.role}; give this command the relay's, on the relay's machine`
      ))

/** `sallyport run`: runs the role of a configuration file until the process is interrupted. */
export const run = (options: {
  readonly config: string
  readonly logFormat: LogFormat
  readonly newIdentity: boolean
}) =>
  Effect.gen(function*() {
    const config = yield* Asker.load(options.config)
    const backend = yield* Backend
    const { config: configFile, logFormat, newIdentity } = options
    if (newIdentity && config.role !== "relay") {
      return yield* usage("--new-identity is for a relay with a directory; a node gets its identity with a token")
    }
    yield* backend.run(config, { logFormat, configFile, newIdentity })
  })

export const demo = Effect.flatMap(Backend, (backend) => backend.demo)

/**
 * `sallyport relay init`: makes the keys and a commented configuration of a new relay. If either
 * exists already it fails and changes nothing.
 */
export const relayInit = (options: {
  readonly dir: string
  readonly host: string
  readonly httpsPort: number
  readonly udpPort: number
  /** The folder for the keys. `null` for `state` in `dir`. */
  readonly stateDir: string | null
}) =>
  Effect.gen(function*() {
    const { dir, httpsPort, udpPort } = options
    const host = HostName.toAscii(options.host) ?? options.host
    const problem = HostPort.isUnspecified(host) ? "which nobody can connect to" : HostPort.hostProblem(host)
    if (problem !== null) {
      return yield* usage(
        `--host ${host}, ${problem}; give the public host name or IP address, such as relay.example.com`
      )
    }
    const backend = yield* Backend
    const file = join(dir, "relay.yaml")
    const stateDir = options.stateDir === null ? join(dir, STATE_FOLDER) : resolve(options.stateDir)
    for (const path of [file, stateDir]) {
      if (yield* isInTheWay(path)) {
        return yield* failure(
          `${path} exists and nothing was changed; choose another --dir, or go on with: sallyport run --config ${file}`
        )
      }
    }
    yield* Effect.mapError(
      Effect.tryPromise(() => mkdir(dir, { recursive: true }).then(() => access(dir, constants.W_OK))),
      ({ error }) => failure(`cannot make ${file}: ${reasonOf(error)}; run with sudo, or choose another --dir`)
    )
    yield* backend.makeRelayKeys(stateDir)
    yield* writeNew(
      file,
      RelayTemplate.render({ host, httpsPort, udpPort, stateDir: options.stateDir === null ? STATE_FOLDER : stateDir })
    )
    yield* Console.log(
      `Made ${file} and the keys in ${stateDir}.\n` +
        `Next: add resources and access rules to ${file}, then\n` +
        `  sallyport run --config ${file}\n` +
        `  sallyport token create --config ${file} --role connector --name office`
    )
  })

const io = <A>(evaluate: () => Promise<A>) =>
  Effect.mapError(Effect.tryPromise(evaluate), ({ error }) => fromError(error))

const reasonOf = (error: unknown): string => {
  const code = error instanceof Error && "code" in error ? String(error.code) : String(error)
  return NO_RIGHT.has(code) ? `no permission to write there (${code})` : `the folder cannot be used (${code})`
}
const NO_RIGHT: ReadonlySet<string> = new Set(["EACCES", "EPERM", "EROFS"])

/** Folder that holds a new relay's keys. It lies beside the relay's configuration file. */
const STATE_FOLDER = "state"

/**
 * Whether a file or a folder with entries is at `path`. An empty folder does not count, because a
 * service manager may have made it.
 */
const isInTheWay = (path: string) =>
  Effect.tryPromise(() => readdir(path)).pipe(
    Effect.map((entries) => entries.length > 0),
    Effect.catchAll(({ error }) =>
      Effect.succeed(error instanceof Error && "code" in error && error.code === "ENOTDIR")
    )
  )

const writeNew = (path: string, text: string) =>
  Effect.scoped(Effect.gen(function*() {
    const file = yield* Effect.acquireRelease(io(() => open(path, "wx", 0o644)), (file) =>
      Effect.promise(() => file.close()))
    yield* io(() =>
      file.writeFile(text)
    )
  }))

const DEFAULT_NETWORK = "default"

/** `sallyport token create`: prints a single-use enrolment token. */
export const tokenCreate = (options: {
  readonly config: string
  readonly role: "client" | "connector" | "relay"
  readonly name: string
  readonly network: string | null
  readonly ttl: string
}) =>
  Effect.gen(function*() {
    const { role } = options
    const { name } = options
    if (HostName.normalize(name) === null) {
      return yield* usage(`--name ${options.name} is no node name; use ${NAME_RULE}`)
    }
    const network = options.network === null ? null : HostName.normalize(options.network)
    if (options.network !== null && network === null) {
      return yield* usage(`--network ${options.network} is no network name; use ${NAME_RULE}`)
    }
    if (role !== "connector" && network !== null) return yield* usage("--network is for connectors only; leave it out")
    const ttl = yield* parseTtl(options.ttl)
    const relay = yield* loadRelay(options.config)
    const networks = [...new Set(relay.resources.map(({ network }) => network))]
    if (network !== null && networks.length > 0 && !networks.includes(network)) {
      return yield* usage(
        `--network ${network}: no resource in ${options.config} is in that network; it has ${networks.join(", ")}; ` +
          "correct the name, or add a resource with that network first"
      )
    }
    const backend = yield* Backend
    const token = yield* backend.createToken(relay, {
      role,
      name,
      network: role === "connector" ? network ?? DEFAULT_NETWORK : null,
      ttl
    })
    yield* Console.log(token)
  })

const SECONDS = { s: 1, m: 60, h: 3600, d: 86_400 }
/**
 * Longest lifetime of a token, in seconds. It leaves time to copy the token to another machine, and
 * a forgotten token still becomes worthless.
 */
const MAX_TTL_SECONDS = 30 * SECONDS.d
/** Shortest lifetime of a token, in seconds. */
const MIN_TTL_SECONDS = 10

/**
 * Parses a duration such as `30m`: an integer with the unit `s`, `m`, `h` or `d`. Fails with a
 * usage error unless it is from 10 seconds to 30 days.
 */
export const parseTtl = (text: string): Effect.Effect<Duration.Duration, CliError> => {
  const parts = /^(\d{1,9})([smhd])$/.exec(text)
  const seconds = parts === null ? 0 : Number(parts[1]) * SECONDS[parts[2] as keyof typeof SECONDS]
  return seconds >= MIN_TTL_SECONDS && seconds <= MAX_TTL_SECONDS
    ? Effect.succeed(Duration.seconds(seconds))
    : usage(`--ttl ${text} is no time from 10s to 30d; write for example --ttl 1h (units: s, m, h, d)`)
}

/** `sallyport node list`: prints the nodes that have enrolled. */
export const nodeList = (options: { readonly config: string; readonly json: boolean }) =>
  Effect.gen(function*() {
    const relay = yield* loadRelay(options.config)
    const nodes = yield* (yield* Backend).listNodes(relay)
    if (options.json) return yield* Console.log(JSON.stringify({ nodes }))
    if (nodes.length === 0) return yield* Console.log("No node has enrolled yet. Let one with: sallyport token create")
    const rows = nodes.map((
      { enrolledAt, name, network, nodeKey, role }
    ) => [name, role, network ?? "-", enrolledAt, nodeKey])
    yield* Console.log(table([["NAME", "ROLE", "NETWORK", "ENROLLED", "KEY"], ...rows]))
  })

/** `sallyport node remove`: removes a node. Fails if there is none of that name. */
export const nodeRemove = (options: { readonly config: string; readonly json: boolean; readonly name: string }) =>
  Effect.gen(function*() {
    const relay = yield* loadRelay(options.config)
    const removed = yield* (yield* Backend).removeNode(relay, options.name)
    if (!removed) {
      return yield* failure(`no node is named ${options.name}; see: sallyport node list --config ${options.config}`)
    }
    yield* Console.log(options.json ? JSON.stringify({ removed: options.name }) : `Removed ${options.name}.`)
  })

const Peer = Schema.Struct({
  name: Schema.String,
  path: Schema.NullOr(Schema.String),
  relay: Schema.optionalWith(Schema.NullOr(Schema.String), { default: () => null }),
  rttMs: Schema.NullOr(Schema.Number),
  reason: Schema.String,
  flows: Schema.Number,
  bytesIn: Schema.Number,
  bytesOut: Schema.Number
})
const ClockAheadMs = Schema.optional(Schema.NullOr(Schema.Number))
const Status = Schema.Struct({
  peers: Schema.Array(Peer),
  /** Present for nodes; a relay has no signaling link. */
  signaling: Schema.optional(Schema.NullOr(Schema.Struct({ clockAheadMs: ClockAheadMs }))),
  /** Present for a relay that has joined another one. */
  directory: Schema.optional(Schema.NullOr(Schema.Struct({ clockAheadMs: ClockAheadMs }))),
  /** Present for the relay that holds the directory. */
  clockAheadMs: ClockAheadMs
})

/** `sallyport status`: prints the state of the running process and its peers. */
export const status = (options: { readonly config: string; readonly json: boolean }) =>
  Effect.gen(function*() {
    const config = yield* Asker.load(options.config)
    const answer = yield* AdminClient.request(config.admin, "GET", "/v1/status", undefined, {
      configFile: options.config
    }).pipe(
      Effect.mapError(fromError)
    )
    const { clockAheadMs, directory, peers, signaling } = yield* Schema.decodeUnknown(Status)(answer).pipe(
      Effect.mapError(() => failure(Asker.OTHER_VERSION))
    )
    const head = yield* Effect.orElseSucceed(Schema.decodeUnknown(StatusHead.Head)(answer), (): StatusHead.Head => ({}))
    const resources = head.self?.role === "client" && head.signaling?.state === "up"
      ? yield* resourcesOf(config, options.config)
      : null
    if (options.json) {
      return yield* Console.log(JSON.stringify(resources === null ? answer : { ...(answer as object), resources }))
    }
    const lines = StatusHead.render(head, resources, Asker.hasColours())
    if (lines.length > 0) yield* Console.log(`${lines.join("\n")}\n`)
    yield* Console.log(peers.length === 0 ? "No peers now." : peerTable(peers, Asker.hasColours()))
    const note = clockNote(clockAheadMs ?? 0, signaling?.clockAheadMs ?? directory?.clockAheadMs ?? 0)
    if (note !== null) yield* Console.log(`Note: ${note}.`)
  })

/**
 * Resources that the client may use. `null` if they cannot be had now, for example while the relay
 * does not answer: the rest of the status is still shown.
 */
const resourcesOf = ({ admin }: Config.Config, configFile: string) =>
  AdminClient.request(admin, "GET", "/v1/resources", undefined, { configFile }).pipe(
    Effect.flatMap(Schema.decodeUnknown(StatusHead.Resources)),
    Effect.orElseSucceed(() => null)
  )

/** A warning about differing clocks. `null` if they agree. */
const clockNote = (ofRelay: number, ofNode: number): string | null =>
  Math.abs(ofRelay) > DirectoryTime.TELL_SKEW_MS
    ? DirectoryTime.clockSetText(ofRelay)
    : Math.abs(ofNode) > DirectoryTime.TELL_SKEW_MS
    ? DirectoryTime.skewText(ofNode)
    : null

/**
 * Renders the peers as a table. Each line is coloured by its path, because operators look for it.
 */
const peerTable = (peers: ReadonlyArray<typeof Peer.Type>, colours: boolean): string => {
  const rows = peers.map((peer) => [
    peer.name,
    [peer.path ?? "-", ...(peer.relay === null ? [] : [peer.relay])].join(" "),
    peer.rttMs === null ? "-" : `${peer.rttMs.toFixed(1)} ms`,
    String(peer.flows),
    bytes(peer.bytesIn),
    bytes(peer.bytesOut),
    peer.reason
  ])
  const [head = "", ...lines] = table([["PEER", "PATH", "RTT", "FLOWS", "IN", "OUT", "WHY THIS PATH"], ...rows]).split(
    "\n"
  )
  const painted = lines.map((line, index) =>
    isDirect(peers[index]?.path) ? colour(colours, 32, line) : colour(colours, 33, line)
  )
  return [colour(colours, 1, head), ...painted].join("\n")
}

/**
 * Runs the network check, either in the running node that `config` describes, or in this process
 * against the STUN server `relay`.
 */
export const netcheck = (options: {
  readonly config: string | null
  readonly relay: string | null
  readonly json: boolean
}) =>
  Effect.gen(function*() {
    const { config, json, relay } = options
    if ((config === null) === (relay === null)) {
      return yield* usage("give either --config FILE of a node that runs here, or --relay HOST:PORT")
    }
    const report = config === null ? yield* checkFrom(relay!) : yield* checkOf(config)
    yield* Console.log(json ? JSON.stringify(report) : NetcheckTable.render(report, Asker.hasColours()))
  })

const checkFrom = (relay: string) =>
  Effect.gen(function*() {
    const address = HostPort.parse(relay)
    if (Either.isLeft(address)) {
      return yield* usage(`--relay ${relay}, ${address.left}; write for example --relay relay.example.com:3478`)
    }
    if (address.right.port === 0) return yield* usage(`--relay ${relay} has no port to ask; write for example :3478`)
    return yield* (yield* Backend).netcheck(address.right)
  })

const checkOf = (file: string) =>
  Effect.gen(function*() {
    const config = yield* Asker.load(file)
    if (config.role === "relay") {
      return yield* usage(
        `${file} is the configuration file of a relay; netcheck needs that of a node, or --relay HOST:PORT`
      )
    }
    const answer = yield* AdminClient.request(config.admin, "GET", "/v1/netcheck", undefined, { configFile: file })
      .pipe(
        Effect.catchTag(
          "NotRunning",
          ({ message }) => failure(`${message}, or ask without it: sallyport netcheck --relay HOST:PORT`)
        ),
        Effect.mapError(fromError)
      )
    return yield* Schema.decodeUnknown(NetReport)(answer).pipe(Effect.mapError(() => failure(Asker.OTHER_VERSION)))
  })
