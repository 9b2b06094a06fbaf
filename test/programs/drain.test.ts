/** Connectors that stop or drain: open flows go on, and new ones go to another connector. */
import { Effect } from "effect"
import { once } from "node:events"
import { copyFileSync } from "node:fs"
import type { Socket } from "node:net"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import * as AdminClient from "../../src/services/admin/AdminClient.ts"
import { load } from "../../src/services/config/Config.ts"
import { HANG_MS } from "../support/Hang.ts"
import { PROGRAM, Program, resource, sallyport, serve, type Served, until, World } from "./support/Programs.ts"

/** Longer than any test here waits: a flow that is cut was not cut by its time. */
const LONG_S = 3000

describe("a connector", () => {
  let world: World
  let server: Served
  /** By name. */
  const connectors = new Map<string, Program>()

  beforeAll(async () => {
    server = await serve((socket) => void socket.pipe(socket))
    world = await World.start({ resources: [resource("echo", server.port)], node: { path: "relay" } })
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    server?.close()
  })

  const fileOf = (name: string) => join(world.dir, `${name}.yaml`)
  /** Starts a connector of its own state directory, or starts it again with another time. */
  const run = async (name: string, drainTimeout: number): Promise<Program> => {
    const before = connectors.get(name) ?? (name === "office" ? world.program("connector") : undefined)
    await before?.stop()
    const enrolment = before === undefined ? { token: await world.token("connector", name) } : {}
    const mine = name === "office" ? {} : { name, stateDir: `state/${name}`, ...enrolment }
    copyFileSync(world.configure("connector", { ...mine, drainTimeout }), fileOf(name))
    const program = world.launch(name, fileOf(name))
    await program.ready()
    connectors.set(name, program)
    return program
  }
  const echoes = async (socket: Socket, text: string): Promise<boolean> => {
    if (socket.destroyed) return false
    socket.write(text)
    const [answer] = await once(socket, "data")
    return String(answer) === text
  }
  const said = (program: Program, text: string) =>
    until(text, () => program.lines.find((line) => line.includes(text)) ?? null, HANG_MS)
  const flowsBy = async (): Promise<ReadonlyArray<string>> => {
    const { peers } = await world.status()
    return peers.flatMap(({ flows, name }) => Array.from({ length: flows }, () => name))
  }

  /** Runs `sallyport drain` for a connector until it ends by itself. */
  const drain = (name: string, ...more: ReadonlyArray<string>) =>
    new Program(PROGRAM, ["drain", "--config", fileOf(name), ...more])
  /** Asks the admin API of a connector. Answers with its error, if that is the answer. */
  const ask = (name: string, path: string) =>
    Effect.runPromise(
      Effect.flatMap(load(fileOf(name)), ({ admin }) => AdminClient.request(admin, "GET", path)).pipe(
        Effect.catchTag("Refused", ({ code, message }) => Effect.succeed({ code, message }))
      )
    )
  const drainingWith = (name: string, flows: number) =>
    until(`${name} drains with ${flows} open flows`, async () => {
      const { draining } = await ask(name, "/v1/status") as { readonly draining: { readonly flows: number } | null }
      return draining?.flows === flows || null
    }, HANG_MS)
  /** A new flow by this connector. */
  const flowBy = (name: string) =>
    until(`a new flow by ${name}`, async () => {
      const before = (await flowsBy()).filter((one) => one === name).length
      const socket = await world.dial("echo", server.port).catch(() => null)
      if ((await flowsBy()).filter((one) => one === name).length > before) return socket
      socket?.destroy()
      return null
    }, HANG_MS)

  it("drains on command, and comes back", async () => {
    const office = await run("office", LONG_S)
    const old = await flowBy("office")
    assert.isTrue(await echoes(old, "before"))
    const branch = await run("branch", LONG_S)
    const first = drain("office")
    await said(first, "1 flow is open")
    const young = await flowBy("branch")
    assert.isTrue(await echoes(young, "by the other"))
    const command = async (...args: ReadonlyArray<string>) => {
      const { code, err, out } = await sallyport([...args, "--config", fileOf("office")])
      return { code, err, out: String(out) }
    }
    await drainingWith("office", 1)
    assert.include((await command("status")).out, "draining, 1 flow open; sallyport drain --cancel")
    const doctor = await command("doctor")
    assert.strictEqual(doctor.code, 0, "nothing is broken")
    assert.include(doctor.out, "on purpose (sallyport drain)")
    assert.include(doctor.out, "take it back with sallyport drain --cancel")
    assert.deepStrictEqual(await ask("office", "/readyz"), {
      code: "unavailable",
      message: "this connector is draining and takes no new flows"
    })
    assert.strictEqual(await ask("office", "/healthz"), "ok\n")

    // Nobody else takes flows.
    const { code } = await drain("branch", "--no-wait").ended
    assert.strictEqual(code, 0)
    await until("new flows are refused", async () => {
      const socket = await world.dial("echo", server.port).catch(() => null)
      socket?.destroy()
      return socket === null ? true : null
    }, HANG_MS)
    assert.isTrue(await echoes(old, "still here"))
    assert.isTrue(await echoes(young, "here, too"))
    assert.isTrue(first.running)

    assert.strictEqual((await command("drain", "--cancel")).code, 0)
    assert.strictEqual((await first.ended).code, 1)
    await said(first, "the drain was cancelled by another command")
    assert.strictEqual(await ask("office", "/readyz"), "ok\n")
    const fresh = []
    for (const text of ["back", "again", "and again"]) {
      const socket = await world.dial("echo", server.port)
      assert.isTrue(await echoes(socket, text))
      fresh.push(socket)
    }
    assert.isTrue(await echoes(old, "in the session of before"))
    await until("the new flows share another session", async () => {
      const { peers } = await world.status()
      return String(peers.map(({ flows, name }) => `${name} ${flows}`).sort()) === "branch 1,office 1,office 3" || null
    }, HANG_MS)

    const second = drain("office", "--json")
    await drainingWith("office", 4)
    for (const socket of [old, ...fresh]) {
      assert.isTrue(await echoes(socket, "to the end"))
      socket.destroy()
    }
    assert.strictEqual((await second.ended).code, 0)
    assert.include(JSON.parse(second.lines.join("")), { draining: true, flows: 0 })
    assert.isTrue(office.running)
    assert.isTrue(await echoes(young, "afterwards"))

    branch.kill("SIGTERM")
    await said(branch, "for open flows (1)")
    const late = await sallyport(["drain", "--cancel", "--config", fileOf("branch")])
    assert.deepStrictEqual([late.code, late.err.includes("is stopping")], [1, true])
    young.destroy()
    assert.strictEqual((await branch.ended).code, 0)
    assert.strictEqual((await office.stop()).code, 0)
  })

  it("waits for its flows, and others take the new ones", async () => {
    await run("office", LONG_S)
    const old = await flowBy("office")
    assert.isTrue(await echoes(old, "before"))
    const branch = await run("branch", LONG_S)
    const office = connectors.get("office")!
    office.kill("SIGTERM")
    await said(office, `stopping: takes no new flows and waits up to ${LONG_S} s for open flows (1)`)
    const young = await until("a new flow by the other connector", async () => {
      const socket = await world.dial("echo", server.port)
      if ((await flowsBy()).includes("branch")) return socket
      socket.destroy()
      return null
    }, HANG_MS)
    assert.isTrue(await echoes(young, "by the other"))
    assert.isTrue(await echoes(old, "still here"))
    assert.isTrue(office.running)
    assert.deepStrictEqual([...await flowsBy()].sort(), ["branch", "office"])

    old.destroy()
    assert.strictEqual((await office.ended).code, 0)
    assert.isTrue(await echoes(young, "afterwards"))

    // The last connector: no other takes a new flow.
    branch.kill("SIGTERM")
    await said(branch, "for open flows (1)")
    const refused = await world.dial("echo", server.port).then(() => "opened", (error: Error) => error.message)
    assert.notStrictEqual(refused, "opened")
    assert.isTrue(await echoes(young, "to the end"))
    young.destroy()
    assert.strictEqual((await branch.ended).code, 0)
  })

  it("cuts flows that outlast drainTimeout, and says so", async () => {
    const office = await run("office", 1)
    const socket = await until("a flow", () => world.dial("echo", server.port).catch(() => null), HANG_MS)
    assert.isTrue(await echoes(socket, "hello"))
    const closed = new Promise((resolve) => socket.on("error", () => {}).once("close", resolve))
    office.kill("SIGTERM")
    assert.strictEqual((await office.ended).code, 0)
    await said(office, "open flows are cut (1), because drainTimeout (1 s) is over")
    await closed
  })

  it("ends at once by a second signal", async () => {
    const office = await run("office", LONG_S)
    const socket = await until("a flow", () => world.dial("echo", server.port).catch(() => null), HANG_MS)
    assert.isTrue(await echoes(socket, "hello"))
    socket.on("error", () => {}) // how the process is ended decides whether the flow is reset
    office.kill("SIGTERM")
    await said(office, "for open flows (1)")
    const again = setInterval(() => office.kill("SIGTERM"), 500)
    await office.ended
    clearInterval(again)
  })
})
