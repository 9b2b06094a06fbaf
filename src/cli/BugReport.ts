/**
 * All that is known of one sallyport, in one file that may be sent to a stranger: gzip of one JSON document. No key or token is asked
 * for; addresses are replaced by words, each by the same one throughout; of the configuration only named parts are taken. Names of
 * nodes and resources stay, or nothing in it could be understood.
 */
import { Clock, Console, Effect, Option, Schema } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { writeFile } from "node:fs/promises"
import { arch, cpus, platform, release, totalmem } from "node:os"
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import pkg from "../../package.json" with { type: "json" }
import * as AdminClient from "../services/AdminClient.ts"
import type * as Config from "../services/config/Config.ts"
import * as Doctor from "../services/telemetry/Doctor.ts"
import { Entry } from "../services/telemetry/Recorder.ts"
import * as Redact from "../services/telemetry/Redact.ts"
import * as Asker from "./Asker.ts"
import { failure } from "./CliError.ts"
import type { Options } from "./Inspect.ts"

const TRACES = 50

export const bugreport = ({ config: file, json, out }: Options & { readonly out: string | null }) =>
  Effect.gen(function*() {
    const config = yield* Asker.load(file)
    const now = yield* Clock.currentTimeMillis
    const ask = (path: string) =>
      AdminClient.request(config.admin, "GET", path, undefined, { configFile: file }).pipe(
        Effect.catchAll(({ message }) => Effect.succeed({ missing: message }))
      )
    const parts = yield* Effect.all(
      {
        status: ask("/v1/status"),
        actors: ask("/v1/actors"),
        recorder: ask("/v1/recorder"),
        traces: ask(`/v1/traces?last=${TRACES}`),
        metrics: ask("/metrics"),
        netcheck: config.role === "client" || config.role === "connector" ? ask("/v1/netcheck") : Effect.succeed(null)
      },
      { concurrency: "unbounded" }
    )
    const report = {
      made: new Date(now).toISOString(),
      sallyport: pkg.version,
      node: process.version,
      system: { platform: platform(), release: release(), arch: arch(), cores: cpus().length, memoryBytes: totalmem() },
      config: partsOf(config),
      doctor: findings(parts, now),
      ...parts
    }
    const path = out ?? `sallyport-bugreport-${new Date(now).toISOString().replaceAll(/[:.]/g, "-")}.json.gz`
    const hosts = hostsOf(config, parts.status)
    const salt = randomBytes(16)
    const hide = (_: string, value: unknown): unknown => typeof value === "string" ? redact(value, hosts, salt) : value
    const text = JSON.stringify(report, hide, 1)
    const bytes = yield* Effect.promise(() => promisify(gzip)(text))
    yield* Effect.mapError(
      Effect.tryPromise(() => writeFile(path, bytes, { mode: 0o600, flag: "wx" })),
      ({ error }) =>
        failure(`${path} cannot be made: ${error instanceof Error ? error.message : String(error)}; give another --out`)
    )
    yield* Console.log(
      json
        ? JSON.stringify({ file: path, bytes: bytes.length })
        : `Made ${path}, ${bytes.length} bytes. It has no keys, tokens or addresses; names of nodes and resources are in it.`
    )
  })

/** What says how it is set up, and neither where things are nor who may reach them. */
const partsOf = (config: Config.Config) => {
  const { logLevel, role, telemetry } = config
  const common = { role, logLevel, telemetry: { exported: telemetry.otlp !== null, sample: telemetry.sample } }
  switch (config.role) {
    case "relay":
      return {
        ...common,
        publicTls: config.tls !== null,
        behindProxy: config.behindProxy !== null,
        proxyProtocol: config.proxyProtocol.length > 0,
        turn: config.turn !== undefined,
        resources: config.resources.length,
        rules: config.access.length
      }
    case "forwarder":
      return common
    case "connector":
    case "client": {
      const { carrier, path, portMapping } = config
      const doors = config.role === "client" ? { socks5: config.socks5 !== null, forwards: config.forwards.length } : {}
      return { ...common, path, carrier, portMapping, ...doors }
    }
  }
}

const Recorded = Schema.Struct({ entries: Schema.Array(Entry) })

/** As doctor says them; null where there is too little to go by. */
const findings = (
  parts: { readonly status: unknown; readonly actors: unknown; readonly recorder: unknown },
  now: number
): ReadonlyArray<Doctor.Finding> | null =>
  Option.getOrNull(Option.map(
    Option.all({
      status: Option.some(Option.getOrNull(Schema.decodeUnknownOption(Doctor.Status)(parts.status))),
      threads: Schema.decodeUnknownOption(Doctor.Threads)(parts.actors),
      recorded: Schema.decodeUnknownOption(Recorded)(parts.recorder)
    }),
    ({ recorded: { entries }, status, threads }) =>
      Doctor.diagnose({ status, threads, states: entries.filter((entry) => entry._tag === "State"), now })
  ))

/** Names of relays and proxies: they are addresses, too. */
const hostsOf = (config: Config.Config, status: unknown): ReadonlyArray<string> => {
  const own = "advertise" in config ? [config.advertise.host] : []
  const signaling = Option.flatMapNullable(
    Schema.decodeUnknownOption(Doctor.Status)(status),
    (known) => known.signaling
  )
  const relay = Option.map(signaling, (known) => known.relay.replace(/:\d+$/, ""))
  const proxy = Option.flatMapNullable(signaling, (known) => /:\/\/([^ ]+):\d+/.exec(known.proxy ?? "")?.[1])
  return [...own, ...Option.toArray(relay), ...Option.toArray(proxy)].filter((host) => host !== "")
}

/** 32 bytes in base64url: a node key, which tells who it is. */
const KEY = /(?<![\w-])[\w-]{43}(?![\w-])/g

/** A word in the place of each address, relay's name and node key; the same one for the same. */
export const redact = (text: string, hosts: ReadonlyArray<string>, salt: Uint8Array): string => {
  const word = (kind: string, what: string) =>
    `${kind}-${createHash("sha256").update(salt).update(what).digest("hex").slice(0, 6)}`
  const named = hosts.reduce((left, host) => left.replaceAll(host, word("host", host)), text)
  return Redact.addresses(named.replace(KEY, (key) => word("key", key)), word)
}
