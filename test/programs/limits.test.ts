/** A client that may open few files, as a shell or a container leaves it. */
import type net from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { Threads } from "../../src/services/telemetry/Doctor.ts"
import { HANG_MS } from "../support/Hang.ts"
import { PROGRAM, Program, resource, sallyport, serve, type Served, until, World } from "./support/Programs.ts"

const MAX_OPEN_FILES = 128
const FLOWS = 150

describe.skipIf(process.platform !== "linux")("with few descriptors a client", () => {
  let world: World
  let echo: Served
  let client: Program

  beforeAll(async () => {
    echo = await serve((socket) => void socket.pipe(socket))
    world = await World.start({ resources: [resource("echo", echo.port)], node: { path: "relay" } })
    await world.program("client").stop()
    const args = [PROGRAM, "run", "--config", world.file("client"), "--log-format", "json"]
    const limited = `ulimit -n ${MAX_OPEN_FILES}; exec "$@"`
    client = new Program("sh", ["-c", limited, "sh", ...args], { cwd: world.dir })
    await client.ready()
  }, 120_000)

  afterAll(async () => {
    await client.stop()
    await world.stop()
    echo.close()
  })

  const dial = (): Promise<net.Socket | null> => world.dial("echo", echo.port).catch(() => null)

  it("refuses what exceeds its limits, says so, and goes on", async () => {
    const results = await Promise.all(Array.from({ length: FLOWS }, dial))
    const open = results.filter((socket) => socket !== null)
    expect(open.length).toBeGreaterThan(10)
    expect(open.length).toBeLessThan(MAX_OPEN_FILES)
    const doctor = await sallyport(["doctor", "--config", world.file("client")], { cwd: world.dir })
    expect(String(doctor.out)).toMatch(/open files and sockets.*\n.*LimitNOFILE/)
    await until("it is logged", () => client.lines.some((line) => line.includes("LimitNOFILE")) || null, HANG_MS)
    for (const socket of open) socket.destroy()
    const again = await until("a new flow is taken", dial, HANG_MS)
    again.destroy()
    const threads = await world.ask("client", "/v1/actors") as Threads
    const restarted = [...threads, ...threads.flatMap(({ actors }) => actors)].filter(({ restarts }) => restarts > 0)
    expect(restarted.map(({ name }) => name)).toEqual([])
  }, 180_000)
})
