/**
 * Tables that say which keys of a configuration file a running process takes over on SIGHUP. Every
 * key of every schema is listed, so that a new key does not compile until it is decided.
 */
import { Redacted } from "effect"
import { eachKey } from "../../protocol/flow/LocalListener.ts"
import type { Config } from "./Config.ts"
import type { Client, Connector, Forwarder, Relay } from "./ConfigSchema.ts"

/**
 * Time when a changed key takes effect. `live`: as soon as the reload has succeeded. `restart`: at
 * the next start; until then the log and `sallyport status` name the key. `enrolment`: never,
 * because the key is read only until the node has enrolled.
 */
export type When = "live" | "restart" | "enrolment"

/** Times when the keys take effect. A key that is a mapping may say so for each of its own keys. */
type Table<Fields> = { readonly [Key in keyof Fields]: When | { readonly [inner: string]: When } }

const common = {
  role: "restart",
  name: "restart",
  stateDir: "restart",
  admin: "live",
  placement: "restart",
  dataThreads: "restart",
  telemetry: { otlp: "restart", sample: "live" },
  logLevel: "live"
} as const

const node = {
  ...common,
  telemetry: { ...common.telemetry, report: "live" },
  token: "enrolment",
  proxy: "restart",
  ca: "restart", // the file is read again for each connection
  carrier: "restart",
  path: "live", // but see `whenOf`
  portMapping: "restart",
  webrtc: "restart",
  iceServers: "restart",
  udp: "restart",
  limits: "restart"
} as const

const relay: Table<typeof Relay.fields> = {
  ...common,
  listen: "restart",
  advertise: "restart",
  tls: "restart", // the files that it names are read again whenever they change
  proxyProtocol: "restart",
  behindProxy: "restart",
  http3: "restart",
  turn: "restart",
  app: "restart",
  resources: "live",
  access: "live"
}
const forwarder: Table<typeof Forwarder.fields> = {
  ...common,
  join: "enrolment",
  proxy: "restart",
  ca: "restart", // the file is read again for each connection
  listen: "restart",
  advertise: "restart"
}
const connector: Table<typeof Connector.fields> = { ...node, drainTimeout: "live", offlineAccess: "live" }
const client: Table<typeof Client.fields> = { ...node, ...eachKey("live") }

/** The tables of all kinds of configuration. */
export const TABLES = { relay, forwarder, connector, client }

/**
 * Lists every key with the time when it takes effect. Keys inside a mapping are written as
 * `telemetry.sample`.
 */
export const keysOf = (role: Config["role"]): ReadonlyArray<readonly [key: string, when: When]> =>
  Object.entries<When | { readonly [inner: string]: When }>(TABLES[role]).flatMap(([key, when]) =>
    typeof when === "string"
      ? [[key, when] as const]
      : Object.entries(when).map(([inner, when]) => [`${key}.${inner}`, when] as const)
  )

/**
 * Returns the keys that take effect at `when` and whose values differ. Both configurations must
 * have the same role. `started`: the configuration with which the process started.
 */
export const changed = (from: Config, to: Config, when: When, started: Config = from): ReadonlyArray<string> =>
  keysOf(from.role).map(([key]) => key).filter((key) =>
    whenOf(key, started) === when && textOf(from, key) !== textOf(to, key)
  )

/**
 * Returns when a changed key takes effect in a process that was started with `started`. `path`
 * needs a restart where `webrtc` is on, because it decides whether the process for WebRTC runs.
 * `undefined` if the role has no such key.
 */
export const whenOf = (key: string, started: Config): When | undefined =>
  key === "path" && "webrtc" in started && started.webrtc === "auto"
    ? "restart"
    : keysOf(started.role).find(([name]) => name === key)?.[1]

const textOf = (config: Config, key: string): string => {
  let value: unknown = config
  for (const part of key.split(".")) {
    value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[part] : undefined
  }
  return JSON.stringify(plain(value)) ?? ""
}

/**
 * Makes a secret comparable, because `JSON.stringify` shows nothing of it. The resulting text is
 * only compared.
 */
const plain = (value: unknown): unknown => Redacted.isRedacted(value) ? { secret: Redacted.value(value) } : value
