/** Connectors that die or freeze while another one serves the network. */
import { once } from "node:events"
import type { Socket } from "node:net"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { type Program, resource, serve, type Served, until, World } from "./support/Programs.ts"

describe("a network with two connectors", () => {
  let world: World
  let server: Served
  /** By name. */
  const connectors = new Map<string, Program>()

  beforeAll(async () => {
    server = await serve((socket) => void socket.pipe(socket))
    world = await World.start({ resources: [resource("echo", server.port)], node: { path: "relay" } })
    connectors.set("office", world.program("connector"))
    const token = await world.token("connector", "branch")
    const branch = world.launch(
      "branch",
      world.configure("connector", { name: "branch", stateDir: "state/branch", token })
    )
    await branch.ready()
    connectors.set("branch", branch)
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    for (const connector of connectors.values()) if (connector.running) connector.kill("SIGCONT")
    await world?.stop()
    server?.close()
  })

  const echoes = async (socket: Socket, text: string): Promise<boolean> => {
    socket.write(text)
    const [answer] = await once(socket, "data")
    return String(answer) === text
  }
  const withFlows = async (): Promise<ReadonlyArray<string>> =>
    (await world.status()).peers.flatMap(({ flows, name }) => flows > 0 ? [name] : [])

  // The frozen connector is first, because it serves again afterwards.
  it.each(["SIGSTOP", "SIGKILL"] as const)("moves new flows from a connector that gets %s", async (signal) => {
    const old = await until("a flow", () => world.dial("echo", server.port).catch(() => null), HANG_MS)
    assert.isTrue(await echoes(old, "before"))
    const ended = new Promise((resolve) => old.on("error", () => {}).once("close", resolve))
    const [dead] = await withFlows()
    const victim = connectors.get(dead ?? "")
    assert.isDefined(victim)

    victim.kill(signal)
    const young = await world.dial("echo", server.port)
    assert.isTrue(await echoes(young, "by the other"))
    assert.deepStrictEqual((await withFlows()).filter((name) => name !== dead).length, 1)
    await ended
    assert.isTrue(await echoes(young, "afterwards"))
    young.destroy()
    if (signal === "SIGSTOP") victim.kill("SIGCONT")
  })
})
