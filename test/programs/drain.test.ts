/** Connectors that stop: open flows go on, and new ones go to another connector. */
import { once } from "node:events"
import type { Socket } from "node:net"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { type Program, resource, sallyport, serve, type Served, until, World } from "./support/Programs.ts"

/** Longer than any test here waits: a flow that is cut was not cut by its time. */
const LONG_S = 3000

describe("a connector that stops", () => {
  let world: World
  let server: Served
  /** By name. */
  const connectors = new Map<string, Program>()

  beforeAll(async () => {
    server = await serve((socket) => void socket.pipe(socket))
    world = await World.start({ resources: [resource("echo", server.port)], node: { path: "relay" } })
    await run("office", LONG_S)
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    server?.close()
  })

  /** Starts a connector of its own state directory, or starts it again with another time. */
  const run = async (name: string, drainTimeout: number): Promise<Program> => {
    await (connectors.get(name) ?? (name === "office" ? world.program("connector") : undefined))?.stop()
    const mine = name === "office"
      ? { drainTimeout }
      : { name, stateDir: `state/${name}`, token: await world.token("connector", name), drainTimeout }
    const program = world.launch(name, world.configure("connector", mine))
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
    const { out } = await sallyport(["status", "--json", "--config", world.file("client")])
    const { peers } = JSON.parse(String(out)) as { readonly peers: ReadonlyArray<{ name: string; flows: number }> }
    return peers.flatMap(({ flows, name }) => Array.from({ length: flows }, () => name))
  }

  it("waits for its flows, and others take the new ones", async () => {
    const old = await world.dial("echo", server.port)
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
