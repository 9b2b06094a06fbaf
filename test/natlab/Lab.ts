/**
 * A relay, a connector and a client as programs (`bin/sallyport`), each on a host of its own in a lab of network namespaces, and a
 * private HTTP server behind the connector. `lab/natlab.sh` draws the network. Build first: the programs run the bundle in `dist`.
 */
import { Data, Duration, Effect, Exit, Schedule, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { assert } from "vitest"
import type { Peer } from "../../src/roles/Running.ts"
import * as AdminClient from "../../src/services/admin/AdminClient.ts"
import { load } from "../../src/services/config/Config.ts"
import { HANG_MS } from "../support/Hang.ts"

/** Some part of the lab did not do what it was asked; `message` says which, with its last words. */
export class LabFailed extends Data.TaggedError("LabFailed")<{
  readonly message: string
  /** What a command had printed that ended with another code than 0. */
  readonly out?: string
}> {}

export type Nat =
  | "none"
  | "firewall"
  | "full-cone"
  | "addr-restricted"
  | "port-restricted"
  | "eim-apdf"
  | "symmetric"
  | "symmetric-pool"
  | "udp-blocked"
  | "tcp443"
  | "web443"
export type Role = "relay" | "relay2" | "connector" | "client"
export interface Options {
  readonly clientNat?: Nat
  readonly connectorNat?: Nat
  /** The connector is plugged in beside the client. */
  readonly sameNat?: boolean
  /** A second NAT before the client's. */
  readonly clientCgn?: Nat
  /** The same, and the connector's NAT is behind it, too. */
  readonly sharedCgn?: Nat
  /** Public IPv6 at both sites, beside what is translated; their NATs are firewalls there. The relay has both, and a name. */
  readonly v6?: boolean
  /** Nodes know the relay by the name relay.natlab, and it listens at every address that it has. */
  readonly named?: boolean
  /** The nodes have their tokens and wait for `start`. */
  readonly relayOnly?: boolean
  /** Of `lab/natlab.sh`, before any program starts. */
  readonly before?: ReadonlyArray<ReadonlyArray<string>>
  /** A second relay, on a host of its own, joins the first before the nodes start. */
  readonly secondRelay?: boolean
  /** Keys of both nodes' files, of the connector's alone, and of the relay's. */
  readonly nodes?: Readonly<Record<string, unknown>>
  readonly connector?: Readonly<Record<string, unknown>>
  readonly relay?: Readonly<Record<string, unknown>>
  /** Of every program's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** Of both nodes. */
  readonly carrier?: "auto" | "webtransport" | "websocket"
}

/** What became of a request. Code 0 is curl's success. */
export interface Fetched {
  readonly code: number
  readonly body: Buffer
  readonly sha256: string
  readonly ms: number
  /** From the start of the request; null: none came. */
  readonly firstByteMs: number | null
  /** Since 1970; null: none came. */
  readonly firstByteAtMs: number | null
  /** The longest time in which no byte came, after the first one. */
  readonly stallMs: number
}

export interface Fetching {
  readonly bytes: () => number
  readonly done: Effect.Effect<Fetched>
}

/** A download that is under way until its test lets it end. */
export interface Held {
  readonly bytes: () => number
  /** Waits for further bytes. */
  readonly more: Effect.Effect<void, LabFailed>
  /** Lets the rest come, and answers with the whole. */
  readonly finish: Effect.Effect<Fetched>
}

export interface Lab {
  readonly start: (role: Role) => Effect.Effect<void, LabFailed, Scope.Scope>
  /** SIGTERM, and waits until the process has ended. */
  readonly stop: (role: Role | "resource") => Effect.Effect<void, LabFailed>
  /** SIGKILL: it says good-bye to nobody. */
  readonly kill: (role: Role) => void
  /** Puts these keys into a node's file, in place of those of the call before, and sends SIGHUP. */
  readonly reload: (role: "client" | "connector", keys: Readonly<Record<string, unknown>>) => Effect.Effect<void>
  /** Of a program that runs. */
  readonly pid: (role: Role) => number
  /** `sallyport ...` on the relay's host, to its end. */
  readonly admin: (...args: ReadonlyArray<string>) => Effect.Effect<string, LabFailed>
  /** The same on the client's host, with the client's configuration. */
  readonly client: (...args: ReadonlyArray<string>) => Effect.Effect<string, LabFailed>
  /** Begins a request by name through the client's SOCKS5 listener. */
  readonly begin: (path: string) => Effect.Effect<Fetching, never, Scope.Scope>
  /** Begins a download of the file at this rate, bytes a second. Its last part trickles until `finish`. */
  readonly hold: (rate: number) => Effect.Effect<Held, never, Scope.Scope>
  readonly fetch: (path: string) => Effect.Effect<Fetched>
  /** The client's only peer, as its admin API tells it, and `sallyport status --json`. */
  readonly peer: Effect.Effect<Peer, LabFailed>
  /** Waits until the client's peer is like this. */
  readonly untilPeer: (is: (peer: Peer) => boolean) => Effect.Effect<Peer, LabFailed>
  /** Of `lab/natlab.sh`. */
  readonly net: (...args: ReadonlyArray<string>) => Effect.Effect<string, LabFailed>
  /** A command on a host of the lab, to its end; what it printed. */
  readonly exec: (host: string, command: string, ...args: ReadonlyArray<string>) => Effect.Effect<string, LabFailed>
  /** What the relay's access link has carried, both directions together. */
  readonly relayBytes: Effect.Effect<number, LabFailed>
  /** What a program has logged since it was started, one JSON object a line. */
  readonly log: (role: Role) => ReadonlyArray<string>
}

export const FILE_BYTES = 5 << 20
export const FILE = randomBytes(FILE_BYTES)
export const FILE_SHA256 = createHash("sha256").update(FILE).digest("hex")

const ROOT = fileURLToPath(new URL("../../", import.meta.url))
export const PROGRAM = join(ROOT, "bin", "sallyport")
export const LAB_DIR = join(ROOT, "test", "natlab", "lab") // not beside this file when a benchmark bundles it
const RESOURCE = { name: "intranet", address: "10.50.0.10", port: 8080 }
const SOCKS5 = "127.0.0.1:1080"
export const RELAY = "203.0.113.10"
/** With IPv6: `lab/natlab.sh`. */
const RELAY_NAME = "relay.natlab"
/** Its other address. */
export const RELAY_2 = "203.0.113.11"
const RELAY2 = "203.0.113.20"
const READY_DEADLINE = Duration.millis(HANG_MS)
/** What was just done to a network is no news to its nodes after this: they do not tell what was before. */
const NOTICED_AFTER = Duration.millis(500)
/** More than a download at a lab's rate has under way: bytes beyond these left after a change. */
const IN_FLIGHT = 4096
const LINES_KEPT = 400
const LINES_SHOWN = 40
export const ENV = { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` }

/** Whether labs can be made here; said aloud once, since a test that is passed over in silence proves nothing. */
export const isPossible: boolean = process.platform === "linux" && process.getuid?.() === 0
if (!isPossible) {
  process.stderr.write("NAT LAB NOT RUN: network namespaces need root on Linux. Nothing below is proved.\n")
}

/** A lab that is up and connected for as long as `body` runs. When it fails, the programs' last lines are shown. */
export const use = <A, E>(options: Options, body: (lab: Lab) => Effect.Effect<A, E, Scope.Scope>) =>
  Effect.scoped(Effect.gen(function*() {
    const logs = new Map<string, ReadonlyArray<string>>()
    const exit = yield* Effect.exit(Effect.flatMap(make(options, logs), body))
    if (Exit.isFailure(exit)) {
      for (const [role, lines] of logs) {
        process.stderr.write(`--- last lines of ${role}\n${lines.slice(-LINES_SHOWN).join("\n")}\n`)
      }
    }
    return yield* exit
  }))

let labs = 0

/** For as long as the scope lasts. `logs` is given what the programs say, by role. */
export const make = Effect.fnUntraced(function*(
  options: Options,
  logs: Map<string, ReadonlyArray<string>> = new Map()
) {
  const name = `s${process.pid.toString(36)}x${labs++}`
  const net = (...args: ReadonlyArray<string>) => output(join(LAB_DIR, "natlab.sh"), [name, ...args])
  const on = (host: string, command: string, args: ReadonlyArray<string>) =>
    ["ip", ["netns", "exec", `nl-${name}-${host}`, command, ...args]] as const
  const dir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "natlab-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const nats = [
    ...(options.clientNat === undefined ? [] : ["--client-nat", options.clientNat]),
    ...(options.connectorNat === undefined ? [] : ["--connector-nat", options.connectorNat]),
    ...(options.clientCgn === undefined ? [] : ["--client-cgn", options.clientCgn]),
    ...(options.sharedCgn === undefined ? [] : ["--shared-cgn", options.sharedCgn]),
    ...(options.sameNat === true ? ["--same-nat"] : []),
    ...(options.v6 === true ? ["--v6"] : [])
  ]
  yield* Effect.acquireRelease(net("up", ...nats), () => Effect.ignore(net("down")))
  if (options.named === true) yield* net("named", RELAY)
  for (const args of options.before ?? []) yield* net(...args)
  writeFileSync(join(dir, "file"), FILE)
  const configs = writeConfigs(dir, options)

  const programs = new Map<string, ChildProcess>()
  const launch = (host: string, program: string, args: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      logs.set(host, lines)
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(...on(host, process.execPath, [program, ...args]), { cwd: dir, env: { ...ENV, ...options.env } })
        ),
        end
      )
      programs.set(host, child)
      yield* untilReady(host, child, lines)
    })
  const start = (role: Role) =>
    launch(
      role,
      PROGRAM,
      ["run", "--config", join(dir, `${role}.json`), "--log-format", "json"].concat(
        role === "relay" ? ["--new-identity"] : []
      )
    )
  const admin = (...args: ReadonlyArray<string>) =>
    output(...on("relay", process.execPath, [PROGRAM, ...args, "--config", join(dir, "relay.json")]))
  const client = (...args: ReadonlyArray<string>) =>
    output(...on("client", process.execPath, [PROGRAM, ...args, "--config", join(dir, "client.json")]))
  const enrol = (role: "connector" | "client" | "relay", node: string, file: string = role) =>
    Effect.map(
      admin("token", "create", "--role", role, "--name", node),
      (token) => writeFileSync(join(dir, `${file}.token`), token, { mode: 0o600 })
    )

  yield* launch("resource", join(LAB_DIR, "resource.mjs"), [
    RESOURCE.address,
    String(RESOURCE.port),
    join(dir, "file")
  ])
  yield* start("relay")
  if (options.secondRelay === true) {
    yield* enrol("relay", "relay-2", "relay2")
    yield* start("relay2")
  }
  yield* Effect.all([enrol("connector", "office"), enrol("client", "laptop")], { concurrency: 2 })
  if (options.relayOnly !== true) yield* Effect.all([start("connector"), start("client")], { concurrency: 2 })

  const begin = (path: string) =>
    request(on("client", "curl", [
      "--silent",
      "--show-error",
      "--no-buffer",
      "--max-time",
      String(HANG_MS / 1000),
      "--write-out",
      "%{stderr}%{time_starttransfer}",
      "--socks5-hostname",
      SOCKS5,
      `http://${RESOURCE.name}:${RESOURCE.port}${path}`
    ]))
  const status = Effect.gen(function*() {
    const { admin } = yield* load(join(dir, "client.json"))
    // A socket of the file system, which the lab's hosts share: asking takes no process.
    if (admin._tag === "Unix") return yield* AdminClient.request(admin, "GET", "/v1/status")
    return JSON.parse(yield* client("status", "--json")) as unknown
  }).pipe(Effect.mapError(({ message }) => new LabFailed({ message })))
  const peer = Effect.flatMap(status, (told) => {
    const [found] = (told as { readonly peers: ReadonlyArray<Peer> }).peers
    return found === undefined
      ? Effect.fail(new LabFailed({ message: "the client has no peer" }))
      : Effect.succeed(found)
  })
  return {
    start,
    stop: (role) => {
      const child = programs.get(role)
      return child === undefined ? Effect.fail(new LabFailed({ message: `no ${role} runs` })) : end(child)
    },
    reload: (role, keys) =>
      Effect.sync(() => {
        const config = { ...configs[role], ...keys }
        writeFileSync(join(dir, `${role}.json`), JSON.stringify(config))
        programs.get(role)?.kill("SIGHUP")
      }),
    pid: (role) => programs.get(role)?.pid ?? 0,
    kill: (role) => void programs.get(role)?.kill("SIGKILL"),
    admin,
    client,
    begin,
    hold: (rate) =>
      Effect.map(begin(`/file?rate=${rate}&hold=1`), ({ bytes, done }): Held => ({
        bytes,
        more: Effect.suspend(() => {
          const before = bytes()
          return untilTrue("the download goes on", () => bytes() > before + IN_FLIGHT)
        }),
        finish: Effect.zipRight(Effect.sync(() => programs.get("resource")?.kill("SIGUSR2")), done)
      })),
    fetch: (path) => Effect.scoped(Effect.flatMap(begin(path), ({ done }) => done)),
    peer,
    untilPeer: (is) => untilPeer(peer, is),
    net,
    exec: (host, command, ...args) => output(...on(host, command, args)),
    relayBytes: Effect.map(net("relaybytes"), Number),
    log: (role) => logs.get(role) ?? []
  } satisfies Lab
})

/** JSON is YAML, too. */
const writeConfigs = (
  dir: string,
  { carrier = "auto", connector, named = false, nodes, relay, v6 = false }: Options
) => {
  const { address, name, port } = RESOURCE
  const node = { carrier, ...nodes, ...(process.env["NATLAB_DEBUG"] === undefined ? {} : { logLevel: "debug" }) }
  const configs = {
    relay: {
      role: "relay",
      name: "relay",
      stateDir: "relay",
      listen: listenAt(v6 ? "[::]" : named ? "0.0.0.0" : RELAY),
      advertise: { host: v6 || named ? RELAY_NAME : RELAY },
      resources: [{ name, address, tcp: [port] }],
      access: [{ clients: ["laptop"], resources: [name] }],
      ...relay
    },
    relay2: {
      role: "relay",
      name: "relay-2",
      stateDir: "relay2",
      join: { file: "relay2.token" },
      listen: { udp: `${RELAY2}:3478` },
      advertise: { host: RELAY2 }
    },
    connector: {
      role: "connector",
      name: "office",
      stateDir: "connector",
      token: { file: "connector.token" },
      ...node,
      ...connector
    },
    client: {
      role: "client",
      name: "laptop",
      stateDir: "client",
      token: { file: "client.token" },
      socks5: SOCKS5,
      ...node
    }
  }
  for (const [role, config] of Object.entries(configs)) writeFileSync(join(dir, `${role}.json`), JSON.stringify(config))
  return configs
}

const listenAt = (host: string) => ({ https: `${host}:443`, udp: `${host}:3478` })

/** What a path takes at most on a host that is busy. How soon a quiet one has it is measured in `bench/`. */
const PATIENCE = Duration.millis(HANG_MS)

/** Waits until something is so. Fails, saying what it waited for, if that hangs. */
export const untilTrue = (what: string, isSo: () => boolean): Effect.Effect<void, LabFailed> =>
  Effect.suspend(() => (isSo() ? Effect.void : Effect.fail("not yet"))).pipe(
    Effect.retry(Schedule.spaced("20 millis")),
    Effect.timeout(HANG_MS),
    Effect.mapError(() => new LabFailed({ message: `it does not happen: ${what}` }))
  )

/**
 * Prints how long something took. `SALLYPORT_FULL=1`, for a machine that does nothing else, also
 * asserts that it was shorter than `mostMs`.
 */
export const tell = (what: string, ms: number, mostMs: number): void => {
  process.stderr.write(`${JSON.stringify({ [what]: Math.round(ms) })}\n`)
  if (process.env["SALLYPORT_FULL"] === "1") assert.isBelow(ms, mostMs, what)
}

const untilPeer = (peer: Lab["peer"], is: (peer: Peer) => boolean): Effect.Effect<Peer, LabFailed> => {
  let last = "nothing"
  return peer.pipe(
    Effect.tap((found) => void (last = `${found.path}: ${found.reason}`)),
    Effect.filterOrFail(is, () => new LabFailed({ message: "not yet" })),
    Effect.retry(Schedule.spaced("100 millis")),
    Effect.delay(NOTICED_AFTER),
    Effect.timeoutFail({
      duration: PATIENCE,
      onTimeout: () => new LabFailed({ message: `after ${Duration.format(PATIENCE)} it is still ${last}` })
    })
  )
}

// -------------------------------------------------------------------------------------------------------------- processes

export const untilReady = (name: string, child: ChildProcess, lines: Array<string>): Effect.Effect<void, LabFailed> => {
  const failed = (what: string) => new LabFailed({ message: [`the ${name} ${what}`, ...lines.slice(-5)].join("\n  ") })
  return Effect.async<void, LabFailed>((resume) => {
    const onLine = (line: string) => {
      lines.push(line)
      if (lines.length > LINES_KEPT) lines.shift()
      if (line.includes("\"event\":\"ready\"")) resume(Effect.void)
    }
    for (const stream of [child.stdout, child.stderr]) if (stream) createInterface({ input: stream }).on("line", onLine)
    child.once("error", ({ message }) => resume(Effect.fail(failed(`cannot be started: ${message}`))))
    child.once("exit", (code) => resume(Effect.fail(failed(`ended with code ${code}`))))
  }).pipe(Effect.timeoutFail({ duration: READY_DEADLINE, onTimeout: () => failed("did not get ready in time") }))
}

export const end = (child: ChildProcess): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGTERM")
  }).pipe(
    Effect.timeoutTo({ duration: HANG_MS, onSuccess: () => undefined, onTimeout: () => void child.kill("SIGKILL") })
  )

/** Runs a command to its end and answers with what it printed. */
export const output = (command: string, args: ReadonlyArray<string>): Effect.Effect<string, LabFailed> =>
  Effect.async((resume) => {
    const child = spawn(command, args, { env: ENV, stdio: ["ignore", "pipe", "pipe"] })
    let out = ""
    let problem = ""
    child.stdout.on("data", (bytes) => (out += String(bytes)))
    child.stderr.on("data", (bytes) => (problem += String(bytes)))
    const failed = (why: string) =>
      resume(Effect.fail(new LabFailed({ message: `${args.join(" ")}: ${why.trim()}`, out })))
    child.once("error", ({ message }) => failed(message))
    child.once("close", (code) => (code === 0 ? resume(Effect.succeed(out)) : failed(problem)))
  })

const request = ([command, args]: readonly [string, ReadonlyArray<string>]) =>
  Effect.gen(function*() {
    const started = performance.now()
    const child = yield* Effect.acquireRelease(Effect.sync(() => spawn(command, args, { env: ENV })), end)
    const parts: Array<Buffer> = []
    let bytes = 0
    let firstAt: number | null = null
    let lastAt = 0
    let stallMs = 0
    child.stdout.on("data", (part: Buffer) => {
      const now = performance.now()
      firstAt ??= now
      if (lastAt > 0) stallMs = Math.max(stallMs, now - lastAt)
      lastAt = now
      bytes += part.length
      parts.push(part)
    })
    let said = ""
    child.stderr.on("data", (part) => (said += String(part)))
    const ended = new Promise<number>((resolve) => child.once("close", (code) => resolve(code ?? -1)))
    const done = Effect.map(Effect.promise(() => ended), (code): Fetched => {
      const body = Buffer.concat(parts)
      const sha256 = createHash("sha256").update(body).digest("hex")
      const first = firstAt === null
        ? { firstByteMs: null, firstByteAtMs: null }
        : { firstByteMs: Number(said) * 1000, firstByteAtMs: performance.timeOrigin + firstAt }
      return { code, body, sha256, ms: performance.now() - started, stallMs, ...first }
    })
    return { bytes: () => bytes, done } satisfies Fetching
  })
