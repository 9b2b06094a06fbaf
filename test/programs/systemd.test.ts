/** What systemd would hear, by a receiver that knows nothing of us. */
import { assert, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { describe } from "vitest"
import * as ServiceManager from "../../src/transport/ServiceManager.ts"
import { command, have, PROGRAM, Program, ROOT, sallyport, World } from "./support/Programs.ts"

const PYTHON = { program: "/usr/bin/python3", apt: "python3" }

const RECEIVE = `
import socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1].replace("@", "\\0", 1) if sys.argv[1][0] == "@" else sys.argv[1])
print("bound", flush=True)
while True: print(receiver.recv(4096).decode().replace("\\n", " "), flush=True)
`

const receiver = (path: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = spawn(PYTHON.program, ["-c", RECEIVE, path], { stdio: ["ignore", "pipe", "inherit"] })
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
      const next = Effect.promise(async () => String((await lines.next()).value))
      return { child, next, bound: (await lines.next()).value as string }
    }),
    ({ child }) =>
      Effect.promise(() => {
        const ended = once(child, "exit")
        child.kill()
        return ended
      })
  )

describe.skipIf(process.platform !== "linux" || !have(PYTHON))("the service manager hears", () => {
  const folder = Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "notify-"))),
    (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
  )

  it.scopedLive.each([["a path"], ["an abstract name"]])("each change, at %s", ([kind]) =>
    Effect.gen(function*() {
      const dir = yield* folder
      const path = kind === "a path" ? join(dir, "notify") : `@${dir}`
      const { bound, next } = yield* receiver(path)
      assert.strictEqual(bound, "bound")
      const manager = ServiceManager.make({ NOTIFY_SOCKET: path })
      yield* manager.ready
      assert.strictEqual(yield* next, "READY=1")
      yield* manager.reloading
      assert.match(yield* next, /^RELOADING=1 MONOTONIC_USEC=\d+$/)
      yield* manager.watch(Effect.succeed(true)) // nobody asked for pings
      yield* manager.stopping(50)
      assert.strictEqual(yield* next, "STOPPING=1 EXTEND_TIMEOUT_USEC=50000000")
    }))

  it.scopedLive("pings only while healthy, and only for this process", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "notify")
      const { next } = yield* receiver(path)
      const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: "60000" }
      let asked = 0
      yield* ServiceManager.make({ ...env, WATCHDOG_PID: "1" }).watch(Effect.die("another process is meant"))
      const { ready, watch } = ServiceManager.make({ ...env, WATCHDOG_PID: String(process.pid) })
      yield* watch(Effect.zipRight(Effect.when(ready, () => ++asked === 5), Effect.sync(() => asked <= 2)))
      assert.deepStrictEqual([yield* next, yield* next, yield* next], ["WATCHDOG=1", "WATCHDOG=1", "READY=1"])
    }))

  it.scopedLive("follows a relay from start through reload to stop", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "notify")
      const { next } = yield* receiver(path)
      const world = yield* Effect.acquireRelease(
        Effect.promise(() => World.start({ resources: [], relayOnly: true })),
        (it) => Effect.promise(() => it.stop())
      )
      yield* Effect.promise(() => world.program("relay").stop())
      const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: "600000" }
      const relay = world.launch("relay", world.file("relay"), env)
      yield* Effect.retry(
        Effect.tryPromise(() => world.ask("relay", "/healthz")),
        { schedule: Schedule.spaced("10 millis"), times: 1_000 }
      )
      relay.kill("SIGHUP") // it is alive, and has not started yet
      const said: Array<string> = []
      while (said.filter((line) => line === "READY=1").length < 2 || said.at(-1) !== "WATCHDOG=1") {
        said.push(yield* next)
      }
      assert.strictEqual(said.findIndex((line) => line.startsWith("RELOADING=1 ")) > said.indexOf("READY=1"), true)
      const { code } = yield* Effect.promise(() => relay.stop())
      assert.strictEqual(code, 0)
      while (said.at(-1)?.startsWith("STOPPING=1") !== true) said.push(yield* next)
    }))
})

const ANALYZE = { program: "systemd-analyze", apt: "systemd" }
const HEADERS = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
const UNIT = join(ROOT, "config", "sallyport.service")

describe.skipIf(process.platform !== "linux" || !have(PYTHON, ANALYZE))("the unit", () => {
  it("leaves an exposure of at most 2.0", async () => {
    const { code, out } = await command("systemd-analyze", ["security", "--offline=true", "--threshold=20", UNIT])
    assert.strictEqual(code, 0, String(out))
  })

  it.skipIf(!existsSync(HEADERS)).each([
    { what: "under its filters", netlink: true },
    { what: "where its filters refuse netlink, too", netlink: false }
  ])("runs the relay that relay init made, $what", async ({ netlink }) => {
    const dir = mkdtempSync(join(tmpdir(), "unit-"))
    const unit = join(dir, "sallyport.service")
    writeFileSync(
      unit,
      readFileSync(UNIT, "utf8").replace(netlink ? "" : "AF_UNIX AF_NETLINK", netlink ? "" : "AF_UNIX")
    )
    const [etc, state] = [join(dir, "etc"), join(dir, "state")]
    const ports = ["--https-port", "28443", "--udp-port", "23478"]
    const made = await sallyport(["relay", "init", "--host", "127.0.0.1", "--dir", etc, "--state-dir", state, ...ports])
    assert.strictEqual(made.code, 0, made.err)
    const file = /^Environment=SALLYPORT_CONFIG=(.*)$/m.exec(readFileSync(UNIT, "utf8"))?.[1]
    assert.strictEqual(file, "/etc/sallyport/relay.yaml")
    const args = [
      join(ROOT, "test/programs/support/unit.py"),
      unit,
      PROGRAM,
      "run",
      "--config",
      join(etc, "relay.yaml")
    ]
    const relay = new Program(PYTHON.program, [...args, "--log-format", "json"])
    try {
      await relay.ready()
      assert.match(readFileSync(`/proc/${relay.pid}/status`, "utf8"), /^Seccomp:\s+2$/m)
      const { out } = await sallyport(["status", "--json", "--config", join(etc, "relay.yaml")])
      const { addresses } = JSON.parse(String(out)) as { addresses: { serving: Array<string>; unseen: boolean } }
      assert.include(addresses.serving, "127.0.0.1")
      assert.isFalse(addresses.unseen)
      assert.strictEqual(relay.lines.some((line) => line.includes("netlink is refused")), !netlink)
      for (const name of readdirSync(state)) assert.strictEqual(statSync(join(state, name)).mode & 0o077, 0, name)
    } finally {
      const { code } = await relay.stop()
      rmSync(dir, { recursive: true })
      assert.strictEqual(code, 0)
    }
  })

  it("does not restart what a restart cannot fix", async () => {
    const status = Number(/^RestartPreventExitStatus=(.*)$/m.exec(readFileSync(UNIT, "utf8"))?.[1])
    const { code } = await sallyport(["run", "--config", "/nonexistent.yaml"])
    assert.strictEqual(code, status)
  })
})
