/**
 * A relay, a connector and any number of clients as processes on loopback, and flows through them that check every byte. Made for
 * runs of minutes and hours: nothing here has a deadline but for hangs.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import type net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as Socks5Client from "../../src/transport/flow/Socks5Client.ts"
import { command, Program, type Result, until } from "../programs/support/Programs.ts"
import { freePort } from "../support/Ports.ts"

/** A step that takes longer than this hangs. */
export const HANG_MS = 120_000
const ECHO_EVERY_MS = 200
const RETRY_MS = 100

export interface Client {
  readonly name: string
  readonly socks5: number
}

export class Net {
  readonly dir = mkdtempSync(join(tmpdir(), "sallyport-soak-"))
  readonly programs = new Map<string, Program>()
  readonly #main: string
  #relay: Record<string, unknown> = {}

  /** `main`: the command line's bundle, of the build that is to run. */
  constructor(main: string) {
    this.#main = main
  }

  file(name: string): string {
    return join(this.dir, `${name}.json`)
  }

  async relay(config: Record<string, unknown>): Promise<void> {
    const https = await freePort()
    this.#relay = {
      role: "relay",
      name: "relay",
      stateDir: "state/relay",
      listen: { https: `127.0.0.1:${https}`, udp: "127.0.0.1:0" },
      advertise: { host: "127.0.0.1" },
      ...config
    }
    await this.#run("relay", this.#relay)
  }

  /** Changes keys of the relay's file and makes the relay read it. */
  reload(changes: Record<string, unknown>): void {
    this.#relay = { ...this.#relay, ...changes }
    writeFileSync(this.file("relay"), JSON.stringify(this.#relay))
    this.programs.get("relay")?.kill("SIGHUP")
  }

  async connector(name: string): Promise<void> {
    const token = await this.#token("connector", name)
    await this.#run(name, { role: "connector", name, stateDir: `state/${name}`, token })
  }

  async client(name: string, config: Record<string, unknown> = {}): Promise<Client> {
    const socks5 = await freePort()
    const token = await this.#token("client", name)
    await this.#run(name, {
      role: "client",
      name,
      stateDir: `state/${name}`,
      token,
      socks5: `127.0.0.1:${socks5}`,
      ...config
    })
    return { name, socks5 }
  }

  async #run(name: string, config: Record<string, unknown>): Promise<void> {
    mkdirSync(join(this.dir, "state"), { recursive: true })
    writeFileSync(this.file(name), JSON.stringify(config))
    const args = [this.#main, "run", "--config", this.file(name), "--log-format", "json"]
    if (name === "relay") args.push("--new-identity")
    const program = new Program(process.execPath, args, { cwd: this.dir })
    this.programs.set(name, program)
    await program.ready()
  }

  async #token(role: string, name: string): Promise<string> {
    const made = await this.cli("token", "create", "--role", role, "--name", name, "--config", this.file("relay"))
    if (made.code !== 0) throw new Error(made.err)
    return String(made.out).trim()
  }

  cli(...args: ReadonlyArray<string>): Promise<Result> {
    return command(process.execPath, [this.#main, ...args], { cwd: this.dir, timeoutMs: HANG_MS })
  }

  /** Waits until the node is signed in and its UDP leg to the relay is bound; fails with what is wrong if it hangs. */
  async untilConnected(name: string): Promise<void> {
    let last = "nothing is known"
    await until(
      `${name} is connected`,
      async () => {
        const { code, err, out } = await this.cli("status", "--json", "--config", this.file(name))
        if (code !== 0) throw new Error(`status of ${name}: ${err}`)
        const { leg, signaling } = JSON.parse(String(out)) as Status // an actor without time to answer is left out
        last = `signaling: ${signaling?.problem}, leg: ${leg?.reason}`
        return signaling?.state === "up" && leg?.kind === "relay-udp" ? true : null
      },
      HANG_MS,
      RETRY_MS
    ).catch((error: Error) => {
      throw new Error(`${error.message} (${last})`)
    })
  }

  /** Lines of a program's log that say this. */
  said(name: string, what: RegExp): ReadonlyArray<string> {
    return this.programs.get(name)?.lines.filter((line) => what.test(line)) ?? []
  }

  /** Resident memory of every process, MiB. */
  memory(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.programs].map(([name, program]) => [name, Math.round(program.rss().now)]))
  }

  async stop(): Promise<void> {
    await Promise.all([...this.programs.values()].map((program) => program.stop()))
    rmSync(this.dir, { recursive: true, force: true })
  }
}

interface Status {
  readonly leg?: { readonly kind: string | null; readonly reason: string } | null
  readonly signaling?: { readonly state: string; readonly problem: string } | null
}

const dial = ({ socks5 }: Client, host: string, port: number): Promise<net.Socket> =>
  Socks5Client.open({ listener: { host: "127.0.0.1", port: socks5 }, host, port, deadlineMs: HANG_MS })

/** Dials until it is let in: right after a rule was given back, the grant may be on its way. */
export const dialUntil = async (client: Client, host: string, port: number): Promise<net.Socket> => {
  let socket: net.Socket | null = null
  await until(
    `${client.name} reaches ${host}`,
    async () => {
      socket = await dial(client, host, port).catch((error: unknown) => {
        if (error instanceof Socks5Client.Socks5Refused) return null
        throw error
      })
      return socket
    },
    HANG_MS,
    RETRY_MS
  )
  return socket as unknown as net.Socket
}

/**
 * Dials until the client is refused with this reply. Right after a rule was taken away the client may still have the old grant and
 * ask the connector, which has the new one and knows no such resource.
 */
export const untilRefused = async (client: Client, host: string, port: number, reply: number): Promise<void> => {
  await until(
    `${client.name} is refused ${host}`,
    async () => {
      try {
        const socket = await dial(client, host, port)
        socket.destroy()
        return null
      } catch (error) {
        return error instanceof Socks5Client.Socks5Refused && error.reply === reply ? true : null
      }
    },
    HANG_MS,
    RETRY_MS
  )
}

/** A flow to an echo server that writes numbers and checks that they come back in order, for as long as it lasts. */
export class EchoFlow {
  readonly #socket: net.Socket
  #sent = 0
  echoed = 0
  problem: string | null = null
  readonly ended: Promise<void>
  readonly #timer: NodeJS.Timeout

  constructor(socket: net.Socket) {
    this.#socket = socket
    socket.on("error", ({ message }) => (this.problem ??= message))
    this.ended = new Promise((resolve) => {
      socket.once("close", () => {
        clearInterval(this.#timer)
        this.problem ??= "the flow was closed"
        resolve()
      })
    })
    let rest = Buffer.alloc(0)
    socket.on("data", (part: Buffer) => {
      const bytes = Buffer.concat([rest, part])
      let at = 0
      for (; at + 4 <= bytes.length; at += 4) {
        if (bytes.readUInt32BE(at) !== this.echoed) this.problem ??= `wrong bytes after ${this.echoed} numbers`
        this.echoed++
      }
      rest = Buffer.from(bytes.subarray(at))
    })
    this.#timer = setInterval(() => {
      const number = Buffer.alloc(4)
      number.writeUInt32BE(this.#sent++)
      socket.write(number)
    }, ECHO_EVERY_MS)
  }

  /** Everything that was sent until now has come back. */
  async proves(what: string): Promise<void> {
    const sent = this.#sent
    await until(`${what} echoes`, () => (this.echoed > sent || this.problem !== null ? true : null), HANG_MS, RETRY_MS)
    if (this.problem !== null) throw new Error(`${what}: ${this.problem}`)
  }

  end(): void {
    clearInterval(this.#timer)
    this.#socket.destroy()
  }
}

/** Repeats `body` until the time is over. A failure ends all. */
export const during = async (untilMs: number, body: () => Promise<void>, everyMs: number): Promise<void> => {
  while (performance.now() < untilMs) {
    await body()
    await sleep(everyMs)
  }
}
