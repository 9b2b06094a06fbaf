/**
 * A relay, a connector and a client as processes (`bin/sallyport run`) on loopback, with configuration files and state in a
 * temporary folder. Build first: the programs run the bundle in `dist`.
 */
import { Effect } from "effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import type { Peer } from "../../../src/roles/Running.ts"
import * as AdminClient from "../../../src/services/admin/AdminClient.ts"
import { type ConfigInput, load } from "../../../src/services/config/Config.ts"
import * as Socks5Client from "../../../src/transport/flow/Socks5Client.ts"
import { HANG_MS } from "../../support/Hang.ts"
import { freePort } from "../../support/Ports.ts"

export type Role = "relay" | "connector" | "client"
type Input<R extends Role> = Exclude<Extract<ConfigInput, { role: R }>, { readonly join: unknown }>
type Port = number

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url))
export const PROGRAM = join(ROOT, "bin", "sallyport")
/** For hangs only: a busy machine takes long to start a process. */
const READY_MS = 180_000
const LINES_KEPT = 500
const LINES_SHOWN = 25
/** Where Debian keeps what is in no path. */
const SBIN = "/usr/sbin:/sbin"

/** True when all programs are there; otherwise it is said aloud what to install, and the caller skips its tests. */
export const have = (...programs: ReadonlyArray<{ readonly program: string; readonly apt: string }>): boolean => {
  const missing = programs.filter(({ program }) => which(program) === null)
  for (const { apt, program } of missing) {
    process.stderr.write(`TESTS NOT RUN, nothing is proved: there is no ${program}; apt-get install ${apt}\n`)
  }
  return missing.length === 0
}

const which = (program: string): string | null => {
  const path = `${process.env["PATH"] ?? ""}:${SBIN}`
  const found = spawnSync("sh", ["-c", `command -v "${program}"`], { env: { PATH: path } })
  return found.status === 0 ? String(found.stdout).trim() : null
}

export const CURL = { program: "curl", apt: "curl" }
export const NETCAT = { program: "nc", apt: "netcat-openbsd" }

// -------------------------------------------------------------------------------------------------------------- commands

export interface Result {
  /** Null: ended by a signal. */
  readonly code: number | null
  readonly out: Buffer
  readonly err: string
  readonly ms: number
}

export interface CommandOptions {
  readonly input?: Uint8Array | string
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  readonly timeoutMs?: number
}

/** Runs a command to its end, which must come in time. */
export const command = async (
  name: string,
  args: ReadonlyArray<string>,
  options: CommandOptions = {}
): Promise<Result> => {
  const { cwd, env, input, timeoutMs = HANG_MS } = options
  const began = performance.now()
  const child = spawn(name, args, { cwd, env: { ...process.env, ...env }, timeout: timeoutMs, killSignal: "SIGKILL" })
  const out: Array<Buffer> = []
  const err: Array<Buffer> = []
  child.stdout.on("data", (bytes: Buffer) => out.push(bytes))
  child.stderr.on("data", (bytes: Buffer) => err.push(bytes))
  child.stdin.on("error", () => undefined) // it may not want to read
  child.stdin.end(input ?? "")
  const [code] = await once(child, "close") as [number | null]
  return { code, out: Buffer.concat(out), err: String(Buffer.concat(err)), ms: performance.now() - began }
}

/** `bin/sallyport ...`, as a user would type it. */
export const sallyport = (args: ReadonlyArray<string>, options?: CommandOptions): Promise<Result> =>
  command(PROGRAM, args, options)

// -------------------------------------------------------------------------------------------------------------- processes

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A process that stays, with the lines it writes. */
export class Program {
  readonly child: ChildProcess
  readonly lines: Array<string> = []
  /** Lines in all; `lines` keeps the last. */
  said = 0
  readonly ended: Promise<Ended>
  #ready: string | null = null

  constructor(name: string, args: ReadonlyArray<string>, options: CommandOptions = {}) {
    this.child = spawn(name, args, { cwd: options.cwd, env: { ...process.env, ...options.env } })
    this.child.on("error", ({ message }) => this.#onLine(message))
    this.ended = once(this.child, "exit").then(([code, signal]): Ended => ({ code, signal }))
    for (const stream of [this.child.stdout, this.child.stderr]) {
      if (stream) createInterface({ input: stream }).on("line", (line) => this.#onLine(line))
    }
  }

  /** The line that says so: `ready` in it. Fails when the process ends before. */
  async ready(): Promise<string> {
    await until("the process is ready", () => this.#ready ?? (this.running ? null : ""), READY_MS).catch(() => "")
    if (this.#ready === null) throw new Error(`it did not get ready:\n${this.lines.slice(-LINES_SHOWN).join("\n")}`)
    return this.#ready
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  /** SIGTERM; answers with how it ended and how long that took, ms. */
  async stop(): Promise<Ended & { readonly ms: number }> {
    const began = performance.now()
    if (this.running) this.child.kill("SIGTERM")
    const last = setTimeout(() => this.child.kill("SIGKILL"), HANG_MS)
    const ended = await this.ended
    clearTimeout(last)
    return { ...ended, ms: performance.now() - began }
  }

  /** Resident memory, MiB: now, and the most since `forgetPeak`. */
  rss(): { readonly now: number; readonly peak: number } {
    const status = readFileSync(`/proc/${this.pid}/status`, "utf8")
    const of = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? Number.NaN) / 1024
    return { now: of("VmRSS"), peak: of("VmHWM") }
  }

  forgetPeak(): void {
    writeFileSync(`/proc/${this.pid}/clear_refs`, "5") // proc(5)
  }

  #onLine(line: string): void {
    if (this.#ready === null && /"event":"ready"|^ready$/.test(line)) this.#ready = line
    this.said++
    this.lines.push(line)
    if (this.lines.length > LINES_KEPT) this.lines.shift()
  }
}

// ------------------------------------------------------------------------------------------------------------------ world

export interface Options {
  readonly resources: NonNullable<Input<"relay">["resources"]>
  /** All resources for `laptop` unless given. */
  readonly access?: NonNullable<Input<"relay">["access"]>
  readonly client?: Partial<Input<"client">>
  /** Of both nodes. */
  readonly node?: { readonly path?: "auto" | "relay"; readonly carrier?: "auto" | "webtransport" | "websocket" }
  /** Of all three. */
  readonly telemetry?: { readonly otlp: string; readonly sample?: number }
  /** Of all three. */
  readonly logLevel?: "debug" | "info"
  readonly turn?: NonNullable<Input<"relay">["turn"]>
  readonly tls?: NonNullable<Input<"relay">["tls"]>
  readonly http3?: boolean
  /** Further keys of the relay's file. */
  readonly relay?: Partial<Input<"relay">>
  /** Starts the relay alone. */
  readonly relayOnly?: boolean
  /** The command line's bundle of another build, such as one with short lifetimes. */
  readonly main?: string
  /** Added to the environment of a role's process, and of commands on its machine. */
  readonly env?: Partial<Readonly<Record<Role, Readonly<Record<string, string>>>>>
}

export class World {
  readonly dir = mkdtempSync(join(tmpdir(), "sallyport-programs-"))
  readonly programs = new Map<string, Program>()
  readonly ports: { readonly https: Port; readonly udp: Port; readonly socks5: Port }
  readonly #options: Options

  static async start(options: Options): Promise<World> {
    const [https, udp, socks5] = [await freePort(), await freePort(), await freePort()]
    const world = new World(options, { https, udp, socks5 })
    try {
      world.configure("relay", {})
      await world.run("relay")
      if (options.relayOnly !== true) await world.#startNodes()
      return world
    } catch (error) {
      await world.stop()
      throw error
    }
  }

  private constructor(options: Options, ports: World["ports"]) {
    this.#options = options
    this.ports = ports
  }

  async #startNodes(): Promise<void> {
    await Promise.all([this.enrol("connector", "office"), this.enrol("client", "laptop")])
  }

  /** Starts a node that was not there before. `changes` as for `configure`. */
  async enrol<R extends "connector" | "client">(
    role: R,
    name: string,
    changes: Partial<Input<R>> = {},
    env: Readonly<Record<string, string>> = {}
  ): Promise<void> {
    writeFileSync(join(this.dir, `${role}.token`), await this.token(role, name))
    await this.launch(role, this.configure(role, changes), env).ready()
  }

  /** Writes `<role>.yaml`; JSON is YAML, too. `changes` replace whole keys of what the world started with. */
  configure<R extends Role>(role: R, changes: Partial<Input<R>>): string {
    const { access, client, http3 = false, logLevel = "info", node, relay, resources, telemetry = {}, tls, turn } =
      this.#options
    const { https, socks5, udp } = this.ports
    const common = { role, stateDir: `state/${role}`, token: { file: `${role}.token` }, telemetry, logLevel }
    const files = {
      relay: {
        role,
        name: "relay",
        stateDir: "state/relay",
        telemetry,
        logLevel,
        http3,
        ...(turn && { turn }),
        ...(tls && { tls }),
        listen: { https: `127.0.0.1:${https}`, udp: `127.0.0.1:${udp}` },
        advertise: { host: "127.0.0.1" },
        resources,
        access: access ?? [{ clients: ["laptop"], resources: ["*"] }],
        ...relay
      },
      connector: { ...common, name: "office", ...node },
      client: { ...common, name: "laptop", socks5: `127.0.0.1:${socks5}`, ...node, ...client }
    }
    writeFileSync(this.file(role), JSON.stringify({ ...files[role], ...changes }, null, 2))
    return this.file(role)
  }

  file(role: Role): string {
    return join(this.dir, `${role}.yaml`)
  }

  /** Starts `<role>.yaml` (or another file) and waits until it is ready. */
  async run(role: Role): Promise<Program> {
    const program = this.launch(role, this.file(role))
    await program.ready()
    return program
  }

  /** The same without waiting. Whatever is launched is stopped with the world. */
  launch(name: string, file: string, env: Readonly<Record<string, string>> = {}): Program {
    const more = name === "relay" ? ["--new-identity"] : []
    const args = ["run", "--config", file, "--log-format", "json", ...more]
    const program = new Program(...this.#programOf(args), {
      cwd: this.dir,
      env: { ...this.#options.env?.[name as Role], ...env }
    })
    this.programs.set(name, program)
    return program
  }

  program(role: Role): Program {
    const program = this.programs.get(role)
    if (program === undefined) throw new Error(`no ${role} runs`)
    return program
  }

  get all(): ReadonlyArray<readonly [string, Program]> {
    return [...this.programs]
  }

  async token(role: "connector" | "client", name: string, ...more: ReadonlyArray<string>): Promise<string> {
    const made = await this.admin("token", "create", "--role", role, "--name", name, ...more)
    if (made.code !== 0) throw new Error(made.err)
    return String(made.out)
  }

  /** A command on the relay's machine. */
  admin(...args: ReadonlyArray<string>): Promise<Result> {
    return this.command("relay", ...args)
  }

  /** A command on a role's machine. */
  command(role: Role, ...args: ReadonlyArray<string>): Promise<Result> {
    const [name, all] = this.#programOf([...args, "--config", this.file(role)])
    return command(name, all, { cwd: this.dir, env: this.#options.env?.[role] ?? {} })
  }

  #programOf(args: ReadonlyArray<string>): readonly [name: string, args: ReadonlyArray<string>] {
    const { main } = this.#options
    return main === undefined ? [PROGRAM, args] : [process.execPath, [main, ...args]]
  }

  /** By the admin API itself: `sallyport status` starts a process for each answer. */
  async status(role: Role = "client"): Promise<{ readonly peers: ReadonlyArray<Peer> }> {
    return await this.ask(role, "/v1/status") as { readonly peers: ReadonlyArray<Peer> }
  }

  /** What the admin API of a role answers. */
  ask(role: Role, path: string): Promise<unknown> {
    return Effect.runPromise(
      Effect.flatMap(load(this.file(role)), ({ admin }) => AdminClient.request(admin, "GET", path))
    )
  }

  /** curl by name through the client. */
  curl(url: string, ...more: ReadonlyArray<string>): Promise<Result> {
    const { socks5 } = this.ports
    const args = ["-sS", "--max-time", String(HANG_MS / 1000), "--socks5-hostname", `127.0.0.1:${socks5}`, ...more, url]
    return command("curl", args)
  }

  /** A connected flow. Rejects with `Socks5Refused`. */
  dial(host: string, port: Port): Promise<net.Socket> {
    const listener = { host: "127.0.0.1", port: this.ports.socks5 }
    return Socks5Client.open({ listener, host, port, deadlineMs: HANG_MS })
  }

  /** Whether a flow connects now. */
  async flows(host: string, port: Port): Promise<boolean> {
    try {
      const socket = await this.dial(host, port)
      socket.destroy()
      return true
    } catch {
      return false
    }
  }

  /** Waits until the client's session is direct, which a dial must have begun. On loopback the relay is as near, and may win for a while. */
  async direct(): Promise<Peer> {
    const found = async () => (await this.status()).peers.find(({ path }) => path === "direct") ?? null
    return until("the path is direct", found, HANG_MS, 200)
  }

  /** What the programs wrote last: for whoever reads a failed run. */
  tell(): void {
    for (const [name, { lines }] of this.programs) {
      process.stderr.write(`--- last lines of ${name}\n${lines.slice(-LINES_SHOWN).join("\n")}\n`)
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.all.map(([, program]) => program.stop()))
    const keep = process.env["PROGRAMS_LOG"]
    if (keep !== undefined) {
      for (const [name, { lines }] of this.all) appendFileSync(keep, `${name}\n${lines.join("\n")}\n`)
    }
    rmSync(this.dir, { recursive: true, force: true })
  }
}

// ---------------------------------------------------------------------------------------------------------------- helpers

/** Asks again until the answer is not null. */
export const until = async <A>(
  what: string,
  ask: () => A | null | Promise<A | null>,
  withinMs: number,
  everyMs = 50
): Promise<A> => {
  const deadline = performance.now() + withinMs
  for (;;) {
    const found = await ask()
    if (found !== null) return found
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`)
    await sleep(everyMs)
  }
}

export interface Served {
  readonly port: Port
  readonly close: () => void
}

/** A TCP server on loopback that may be half-closed. */
export const serve = async (onSocket: (socket: net.Socket) => void): Promise<Served> => {
  const open = new Set<net.Socket>()
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    open.add(socket)
    socket.once("close", () => open.delete(socket))
    socket.on("error", () => undefined)
    onSocket(socket)
  })
  server.listen({ host: "127.0.0.1", port: 0, backlog: 1024 })
  await once(server, "listening")
  const close = () => {
    server.close()
    for (const socket of open) socket.destroy()
  }
  return { port: (server.address() as net.AddressInfo).port, close }
}

/** What the connector may reach at this port of its own machine. */
export const resource = (name: string, ...tcp: ReadonlyArray<Port>) => ({
  name,
  address: "127.0.0.1",
  tcp: [...tcp],
  allowLoopback: true
})
