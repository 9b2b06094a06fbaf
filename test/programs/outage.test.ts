/**
 * The only relay, which has the directory, dies under open flows and comes back with other rules. The programs are of a build in
 * which a grant lasts some seconds (`Lifetimes.BRIEF`).
 */
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import type { Socket } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { LEEWAY_SECONDS } from "../../src/protocol/trust/Documents.ts"
import { BRIEF } from "../../src/protocol/trust/Lifetimes.ts"
import { HANG_MS } from "../support/Hang.ts"
import { resource, ROOT, serve, type Served, until, World } from "./support/Programs.ts"

const ECHO_EVERY_MS = 200

/** A flow in which something is echoed all the time. */
class Echoes {
  count = 0
  readonly ended: Promise<void>
  readonly #socket: Socket
  #isOver = false

  constructor(socket: Socket) {
    this.#socket = socket
    this.ended = new Promise((resolve) => {
      socket.on("error", () => undefined).once("close", () => {
        this.#isOver = true
        resolve()
      })
    })
    void this.#run()
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Waits for `n` more echoes. */
  async more(n: number): Promise<void> {
    const wanted = this.count + n
    await until(`${n} more echoes`, () => this.count >= wanted || this.#isOver || null, HANG_MS)
    assert.isFalse(this.#isOver, "the flow is open")
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      this.#socket.write("x")
      await Promise.race([once(this.#socket, "data").catch(() => undefined), this.ended])
      if (!this.#isOver) this.count++
      await sleep(ECHO_EVERY_MS)
    }
  }
}

describe("flows whose only relay dies", () => {
  let world: World
  let servers: ReadonlyArray<Served>

  beforeAll(async () => {
    execFileSync(process.execPath, [join(ROOT, "scripts", "build.mjs"), "--brief-lifetimes"], { stdio: "inherit" })
    servers = [await serve((socket) => void socket.pipe(socket)), await serve((socket) => void socket.pipe(socket))]
    world = await World.start({
      main: join(ROOT, "dist-brief", "cli", "main.js"),
      resources: [resource("steady", servers[0]!.port), resource("wiki", servers[1]!.port)]
    })
  }, HANG_MS)
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    for (const server of servers ?? []) server.close()
  })

  const dial = async (at: 0 | 1): Promise<Echoes> =>
    new Echoes(await world.dial(at === 0 ? "steady" : "wiki", servers[at]!.port))

  it("outlive their grants, and end by new rules", async () => {
    const steady = await dial(0)
    const wiki = await dial(1)
    await until(
      "a direct path",
      async () => (await world.status()).peers[0]?.path.startsWith("direct") || null,
      HANG_MS
    )

    const relay = world.program("relay")
    relay.kill("SIGKILL")
    await relay.ended
    // No renewed grant is valid any more.
    await sleep((BRIEF.grant + LEEWAY_SECONDS + 2) * 1000)
    await Promise.all([steady.more(5), wiki.more(5)])
    const another = await dial(0)
    await another.more(5)
    for (const role of ["connector", "client"] as const) {
      const doctor = await world.command(role, "doctor")
      assert.match(String(doctor.out), /access goes on until 20/, role)
      const status = await world.command(role, "status")
      assert.match(String(status.out), /access goes on until 20/, role)
    }

    world.configure("relay", { access: [{ clients: ["laptop"], resources: ["steady"] }] })
    await world.run("relay")
    await wiki.ended
    await Promise.all([steady.more(5), another.more(5)])
    await until(
      "a grant of the new rules",
      () => world.dial("wiki", servers[1]!.port).then(() => null, () => true),
      HANG_MS
    )
  }, 2 * HANG_MS)
})
