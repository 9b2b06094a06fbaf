/** Machines whose clocks are wrong, and are set while the programs run. libfaketime changes the time of day, not the uptime. */
import { once } from "node:events"
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import type net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { have, resource, type Role, serve, type Served, until, World } from "./support/Programs.ts"

const isHere = have({ program: "faketime", apt: "faketime" })
/** How far a reported difference may be off on a busy machine. */
const NEAR_MS = 3_600_000
/** For hangs only. */
const PATIENCE_MS = 120_000
let world: World
let server: Served
let dir: string

const library = (): string =>
  readdirSync("/usr/lib")
    .map((name) => `/usr/lib/${name}/faketime/libfaketimeMT.so.1`)
    .find((path) => existsSync(path)) ?? "/usr/lib/faketime/libfaketimeMT.so.1"
/** Offsets are libfaketime's: "-2h", "+22h", "-7211s". */
const setClocks = (offsets: Partial<Readonly<Record<Role, string>>>) => {
  for (const [role, offset] of Object.entries(offsets)) writeFileSync(join(dir, role), `${offset}\n`)
}
const envOf = (role: Role) => ({
  LD_PRELOAD: library(),
  FAKETIME_TIMESTAMP_FILE: join(dir, role),
  FAKETIME_CACHE_DURATION: "1",
  FAKETIME_DONT_FAKE_MONOTONIC: "1",
  DONT_FAKE_MONOTONIC: "1"
})

const dial = async (): Promise<net.Socket> => (await world.dial("echo", server.port)).on("error", () => undefined) // the world's end resets it
const echo = async (socket: net.Socket, text: string): Promise<void> => {
  socket.write(text)
  const [answer] = await once(socket, "data") as [Buffer]
  assert.strictEqual(String(answer), text)
}
/** Waits until `role` reports that its clock is `aheadMs` ahead. */
const isAhead = (role: Role, aheadMs: number): Promise<number> =>
  until(
    `${role} reports that its clock is ${aheadMs} ms ahead`,
    async () => {
      // It may not answer in time while the machine is busy.
      const status = await world.status(role).catch(() => null) as {
        readonly clockAheadMs?: number
        readonly signaling?: { readonly clockAheadMs: number | null } | null
      } | null
      const told = status?.clockAheadMs ?? status?.signaling?.clockAheadMs ?? null
      return told !== null && Math.abs(told - aheadMs) < NEAR_MS ? told : null
    },
    PATIENCE_MS,
    200
  )
const hours = (n: number): number => n * 3_600_000

describe.skipIf(!isHere)("clocks that are wrong", () => {
  let flow: net.Socket

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "sallyport-clocks-"))
    server = await serve((socket) => void socket.pipe(socket))
    // The connector is 11 s behind the relay and the client a day ahead of it.
    setClocks({ relay: "-2h", connector: "-7211s", client: "+22h" })
    const env = { relay: envOf("relay"), connector: envOf("connector"), client: envOf("client") }
    world = await World.start({ resources: [resource("echo", server.port)], env })
  }, 180_000)
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    flow?.destroy()
    await world?.stop()
    server?.close()
    if (dir !== undefined) rmSync(dir, { recursive: true })
  })

  it("let flows open, and are reported by status and doctor", async () => {
    flow = await dial()
    await echo(flow, "hello")
    await isAhead("client", hours(24))
    await isAhead("relay", 0) // the directory's time is what the relay's clock said
    const [doctor, status] = await Promise.all([world.command("client", "doctor"), world.command("client", "status")])
    assert.include(String(doctor.out), "this machine's clock is 24 h ahead of the relay's")
    assert.include(String(status.out), "24 h ahead of the relay's")
  })

  it("end nothing when they are set while everything runs", async () => {
    setClocks({ relay: "+22h", connector: "+0", client: "-26h" })
    await isAhead("relay", hours(24))
    await isAhead("client", hours(-24))
    await echo(flow, "still here")
    const next = await dial()
    await echo(next, "and one more")
    next.destroy()
  })
})
