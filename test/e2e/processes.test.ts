/** The program as people run it: processes of `bin/sallyport`, and the examples beside it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Sallyport } from "../../src/roles/Sallyport.ts"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import * as World from "./support/World.ts"

const ROOT = fileURLToPath(new URL("../../", import.meta.url))
const PROGRAM = join(ROOT, "bin", "sallyport")

interface Process {
  readonly child: ChildProcess
  readonly lines: ReadonlyArray<string>
  readonly errors: ReadonlyArray<string>
  readonly until: (wanted: string) => Effect.Effect<string>
  readonly exit: Effect.Effect<number | null>
}

const start = (args: ReadonlyArray<string>, options: { readonly cwd: string; readonly env?: Record<string, string> }) =>
  Effect.acquireRelease(
    Effect.sync((): Process => {
      const child = spawn(process.execPath, args, { cwd: options.cwd, env: { ...process.env, ...options.env } })
      const lines: Array<string> = []
      const errors: Array<string> = []
      child.stdout.setEncoding("utf8").on("data", (text: string) => lines.push(...text.split("\n")))
      child.stderr.setEncoding("utf8").on("data", (text: string) => errors.push(...text.split("\n")))
      const exit = Effect.async<number | null>((resume) => {
        if (child.exitCode !== null) return resume(Effect.succeed(child.exitCode))
        child.once("exit", (code) => resume(Effect.succeed(code)))
      })
      const until = (wanted: string) =>
        Effect.suspend(() => Effect.fromNullable(lines.find((line) => line.includes(wanted)))).pipe(
          Effect.retry({ schedule: World.spaced, times: 1500 }),
          Effect.orDieWith(() => new Error(`no line with ${wanted}; it said ${[...lines, ...errors].join("\n")}`))
        )
      return { child, lines, errors, until, exit }
    }),
    ({ child, exit }) =>
      Effect.zipRight(Effect.sync(() => child.kill("SIGTERM")), Effect.timeoutOption(exit, "6 seconds")).pipe(
        Effect.zipRight(Effect.sync(() => child.kill("SIGKILL")))
      )
  )

/** Standard output, standard error and the exit code of a command. */
const run = (args: ReadonlyArray<string>, cwd: string) =>
  Effect.async<{ readonly out: string; readonly err: string; readonly code: number }>((resume) => {
    const child = execFile(
      process.execPath,
      [PROGRAM, ...args],
      { cwd },
      (_, out, err) => resume(Effect.succeed({ out, err, code: child.exitCode ?? -1 }))
    )
  })

const relayIn = (dir: string, port: number): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.gen(function*() {
    const [https, udp] = [yield* Effect.promise(freePort), yield* Effect.promise(freePort)]
    writeFileSync(
      join(dir, "relay.yaml"),
      `role: relay\nname: relay\nstateDir: relay\nlisten: {https: "127.0.0.1:${https}", udp: "127.0.0.1:${udp}"}\n` +
        `advertise: {host: 127.0.0.1}\nresources:\n` +
        `  - {name: Tickets_1, network: office, address: 127.0.0.1, tcp: [${port}], allowLoopback: true}\n` +
        `access:\n  - {clients: [reporter, reporter.local], resources: [tickets_1]}\n`
    )
    const args = ["run", "--config", "relay.yaml", "--log-format", "json", "--new-identity"]
    const relay = yield* start([PROGRAM, ...args], { cwd: dir })
    yield* relay.until("\"event\":\"ready\"")
    return relay
  })

const tokenFor = (dir: string, role: string, name: string, ...more: ReadonlyArray<string>) =>
  Effect.map(
    run(["token", "create", "--config", "relay.yaml", "--role", role, "--name", name, ...more], dir),
    ({ err, out }) => {
      assert.match(out, /^sp1_\S+\n$/, err)
      return out.trim()
    }
  )

describe("processes", () => {
  it.scopedLive(
    "enrol, show names as given, and end soon after SIGTERM",
    () =>
      Effect.gen(function*() {
        const dir = yield* World.temporaryDir
        const server = createServer((_, response) => response.end("it works"))
        const port = yield* Effect.async<number>((resume) => {
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
        })
        yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
        const relay = yield* relayIn(dir, port)
        const token = yield* tokenFor(dir, "client", "Reporter.local")
        writeFileSync(
          join(dir, "connector.yaml"),
          `role: connector\nname: büro\nstateDir: office\ntoken: ${yield* tokenFor(
            dir,
            "connector",
            "Büro",
            "--network",
            "office"
          )}\n`
        )
        writeFileSync(
          join(dir, "client.yaml"),
          `role: client\nname: Reporter.LOCAL\nstateDir: reporter\ntoken: {env: TOKEN}\nsocks5: "127.0.0.1:0"\n`
        )
        const connector = yield* start([
          PROGRAM,
          "run",
          "--config",
          join(dir, "connector.yaml"),
          "--log-format",
          "json"
        ], { cwd: "/" })
        const client = yield* start([PROGRAM, "run", "--config", "client.yaml", "--log-format", "json"], {
          cwd: dir,
          env: { TOKEN: token }
        })
        const ready = JSON.parse(yield* client.until("\"event\":\"ready\"")) as {
          role: string
          name: string
          listen: { socks5: string }
        }
        yield* connector.until("\"event\":\"ready\"")
        assert.deepInclude(ready, { role: "client", name: "Reporter.LOCAL" })

        const empty = yield* run(["status", "--config", "client.yaml", "--json"], dir)
        assert.deepEqual([empty.code, (JSON.parse(empty.out) as { peers: Array<unknown> }).peers], [0, []])
        const at = Number(ready.listen.socks5.split(":").at(-1))
        const socket = yield* World.dialBy({ host: "127.0.0.1", port: at }, "TICKETS_1", port)
        socket.write("GET / HTTP/1.0\r\n\r\n")
        const answer = yield* Effect.promise(async () =>
          Buffer.concat(await socket.toArray() as Array<Buffer>).toString()
        )
        assert.include(answer, "it works")
        const { out } = yield* run(["status", "--config", "client.yaml", "--json"], dir)
        const page = yield* run(["status", "--config", "client.yaml"], dir)
        assert.match(page.out, /^client Reporter\.LOCAL, [^]*may use: Tickets_1 [^]*\bBüro\b/)
        const other = yield* run(["status", "--config", "connector.yaml", "--json"], dir)
        const { peers, self } = JSON.parse(other.out) as { peers: Array<{ name: string }>; self: { name: string } }
        assert.deepStrictEqual([self.name, ...peers.map(({ name }) => name)], ["büro", "Reporter.local"])
        const listed = yield* run(["node", "list", "--config", "relay.yaml"], dir)
        assert.match(listed.out, /^Reporter\.local [^]*^Büro /m)
        const [peer] = (JSON.parse(out) as { peers: Array<Record<string, unknown>> }).peers
        assert.containsAllKeys(peer, ["name", "path", "rttMs", "reason", "flows", "bytesIn", "bytesOut"])
        assert.strictEqual(peer?.["name"], "Büro")
        assert.notStrictEqual(peer?.["reason"], "")

        writeFileSync(join(dir, "thief.yaml"), `role: client\nname: reporter.local\nstateDir: thief\ntoken: ${token}\n`)
        const thief = yield* start([PROGRAM, "run", "--config", "thief.yaml"], { cwd: dir })
        assert.strictEqual(yield* thief.exit, 1)
        assert.match(thief.errors.join("\n"), /token/)
        assert.notInclude(thief.errors.join("\n"), token)

        for (const { child, exit } of [client, connector, relay]) {
          child.kill("SIGTERM")
          assert.strictEqual(yield* Effect.timeout(exit, HANG_MS), 0)
        }
      }),
    120_000
  )

  it.scopedLive(
    "the examples: a script's client asks a service's connector",
    () =>
      Effect.gen(function*() {
        const dir = yield* World.temporaryDir
        const port = yield* Effect.promise(freePort)
        yield* relayIn(dir, port)
        const env = { PORT: String(port) }
        const connector = yield* tokenFor(dir, "connector", "tickets-service", "--network", "office")
        const service = yield* start([join(ROOT, "examples/express-connector.mjs")], {
          cwd: dir,
          env: { ...env, TOKEN: connector, STATE: "c" }
        })
        yield* service.until("ready")
        const client = yield* tokenFor(dir, "client", "reporter")
        const script = yield* start([join(ROOT, "examples/query-client.mjs"), "tickets_1"], {
          cwd: dir,
          env: { ...env, TOKEN: client, STATE: "q", NAME: "Reporter" }
        })
        assert.strictEqual(yield* script.exit, 0, script.errors.join("\n"))
        assert.include(script.lines.join("\n"), "Printer on fire")
        assert.include(script.lines.join("\n"), "\"name\":\"tickets-service\"")
      }),
    120_000
  )

  it.scopedLive(
    "an embedding program tells a reset from an end",
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve((socket) => {
          socket.write("hello")
          socket.on("data", (word) => String(word) === "end" ? socket.end("bye") : socket.resetAndDestroy())
        })
        const world = yield* World.make({
          resources: [{ name: "speaker", address: "127.0.0.1", tcp: [port], allowLoopback: true }],
          access: [{ clients: ["reader"], resources: ["*"] }]
        })
        const https = Number(world.relay.listen["https"]?.split(":").at(-1))
        const token = yield* World.createToken(world.relayConfig, https, "client", "reader", null)
        const config = { role: "client" as const, name: "reader", stateDir: join(world.dir, "reader"), token }
        const node = yield* Effect.acquireRelease(
          Effect.promise(() => Sallyport.start(config)),
          (node) => Effect.promise(() => node.stop())
        )
        const read = (word: string) =>
          Effect.promise(async () => {
            const socket = await node.dial("speaker", port)
            let text = ""
            try {
              for await (const part of socket) {
                if (text === "") socket.write(word)
                text += String(part)
              }
              return [text, null]
            } catch (error) {
              return [text, (error as NodeJS.ErrnoException).code]
            }
          })
        assert.deepStrictEqual(yield* read("end"), ["hellobye", null])
        assert.deepStrictEqual(yield* read("reset"), ["hello", "ECONNRESET"])
        assert.deepStrictEqual(yield* read("end"), ["hellobye", null])
      }),
    120_000
  )

  const cycles = Number(process.env["SALLYPORT_CYCLES"] ?? 5)
  it.scopedLive(
    `a client that restarts ${cycles} times leaves nothing behind`,
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve((socket) => void socket.pipe(socket))
        const world = yield* World.make({
          resources: [{ name: "echo", address: "127.0.0.1", tcp: [port], allowLoopback: true }]
        })
        const https = Number(world.relay.listen["https"]?.split(":").at(-1))
        const token = yield* World.createToken(world.relayConfig, https, "client", "cycler", null)
        const handles = () => {
          const counts: Record<string, number> = {}
          for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1
          return {
            ports: counts["MessagePort"] ?? 0,
            sockets: (counts["TCPSocketWrap"] ?? 0) + (counts["PipeWrap"] ?? 0),
            servers: counts["TCPServerWrap"] ?? 0
          }
        }
        const cycle = Effect.promise(async () => {
          const node = await Sallyport.start({
            role: "client",
            name: "cycler",
            stateDir: join(world.dir, "cycler"),
            token
          })
          const refused = await node.dial("echo", port).then(
            () => "opened",
            (error: { reason: string }) => error.reason
          )
          await node.stop()
          return refused
        })
        assert.strictEqual(yield* cycle, "denied", "no rule lets it in")
        const before = handles()
        for (let i = 1; i < cycles; i++) {
          yield* cycle
        }
        yield* Effect.sleep("500 millis")
        const after = handles()
        assert.isAtMost(after.ports, before.ports, JSON.stringify({ before, after }))
        assert.isAtMost(after.sockets, before.sockets, JSON.stringify({ before, after }))
        assert.isAtMost(after.servers, before.servers, JSON.stringify({ before, after }))
      }),
    240_000
  )
})
