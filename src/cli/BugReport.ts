/**
 * Writes a bug report: one JSON document, compressed with gzip, that may be sent to a stranger.
 *
 * The report asks for no key and no token. Each address, relay host name and node key is replaced
 * by a placeholder, the same one everywhere in the report. Only named parts of the configuration
 * are included. Names of nodes and resources stay, because nothing could be understood without
 * them.
 */
import { Clock, Console, Effect, Option, Schema } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { writeFile } from "node:fs/promises"
import { arch, cpus, platform, release, totalmem } from "node:os"
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import pkg from "../../package.json" with { type: "json" }
import { listOf, summaryOf } from "../protocol/flow/LocalListener.ts"
import * as AdminClient from "../services/admin/AdminClient.ts"
import type * as Config from "../services/config/Config.ts"
import * as Doctor from "../services/telemetry/Doctor.ts"
import { Entry } from "../services/telemetry/Recorder.ts"
import * as Redact from "../services/telemetry/Redact.ts"
import * as Asker from "./Asker.ts"
import { failure } from "./CliError.ts"
import type { Options } from "./commands/Inspect.ts"

/** Traces in a report: the last ones. */
const TRACES = 50

/**
 * `sallyport bugreport`: writes the report to `out`, or to a file named after the time if it is
 * `null`. Never overwrites a file. Parts that the process does not answer are reported as missing.
 */
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

/**
 * Parts of the configuration that say how the process is set up. They name no place and no access
 * rule.
 */
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
      const listeners = config.role === "client" ? summaryOf(listOf(config, null)) : {}
      return { ...common, path, carrier, portMapping, ...listeners }
    }
  }
}

const Recorded = Schema.Struct({ entries: Schema.Array(Entry) })

/**
 * Findings as `sallyport doctor` reports them. `null` if the running process did not answer with
 * its actors or its recorder.
 */
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

/**
 * Host names of relays and proxies to hide: its own advertised one, its relay's and its proxy's.
 */
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

/** Matches a node key: 32 bytes in base64url. It identifies a node. */
const KEY = /(?<![\w-])[\w-]{43}(?![\w-])/g

/**
 * Replaces each address, each of `hosts` and each node key by a placeholder. With the same `salt`
 * equal inputs give the same placeholder.
 */
export const redact = (text: string, hosts: ReadonlyArray<string>, salt: Uint8Array): string => {
  const word = (kind: string, what: string) =>
    `${kind}-${createHash("sha256").update(salt).update(what).digest("hex").slice(0, 6)}`
  const named = hosts.reduce((left, host) => left.replaceAll(host, word("host", host)), text)
  return Redact.addresses(named.replace(KEY, (key) => word("key", key)), word)
}
