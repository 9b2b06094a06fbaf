/** Half-close as programs on the command line use it. */
import { randomBytes } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { command, CURL, have, NETCAT, Program, resource, type Result, until, World } from "./support/Programs.ts"

const BYTES = randomBytes(2 << 20)

describe.skipIf(!have(NETCAT, CURL))("nc at both ends", () => {
  let world: World
  let listening: number
  let forward: number

  beforeAll(async () => {
    ;[listening, forward] = [await freePort(), await freePort()]
    world = await World.start({
      resources: [resource("nc", listening)],
      client: { forwards: [{ listen: `127.0.0.1:${forward}`, resource: "nc", port: listening }] }
    })
  })
  afterAll(async () => {
    await world?.stop()
  })

  /** `-N` ends the sending side behind its input; who has nothing to say waits for the end of what is said. */
  const ending = (input: Uint8Array) => (input.length > 0 ? ["-N"] : [])
  /** Answers with what the listener got. */
  const listen = (input: Uint8Array): Promise<Result> =>
    command("nc", ["-l", ...ending(input), "127.0.0.1", String(listening)], { input })
  const viaForward = (input: Uint8Array) => command("nc", [...ending(input), "127.0.0.1", String(forward)], { input })
  const viaSocks = (input: Uint8Array) => {
    const proxy = ["-X", "5", "-x", `127.0.0.1:${world.ports.socks5}`]
    return command("nc", [...ending(input), ...proxy, "nc", String(listening)], { input })
  }

  // One side speaks at a time: an nc whose peer ends first drops what it has not sent yet, also without anybody between.
  it.each([
    ["a forward", viaForward],
    ["SOCKS5", viaSocks]
  ])("each side receives all bytes before the end, by %s", async (_, connect) => {
    for (const [up, down] of [[BYTES, Buffer.alloc(0)], [Buffer.alloc(0), BYTES]] as const) {
      const listener = listen(down)
      await sleep(300) // nc tells nobody that it listens
      const [far, near] = await Promise.all([listener, connect(up)])
      assert.deepStrictEqual([near.code, far.code], [0, 0], near.err + far.err)
      assert.isTrue(far.out.equals(up), `${far.out.length} of ${up.length} bytes went up`)
      assert.isTrue(near.out.equals(down), `${near.out.length} of ${down.length} bytes came down`)
    }
  })

  it("a listener that answers after the end sees that end", async () => {
    const server = new Program("sh", ["-c", `nc -l 127.0.0.1 ${listening} | wc -c`])
    await sleep(300)
    // Without -N the listener keeps its own side open until the application has ended both.
    const client = new Program("sh", ["-c", `head -c 100000 /dev/zero | nc -N 127.0.0.1 ${forward}`])
    await until("it counted", () => server.lines.find((line) => line.trim() === "100000") ?? null, HANG_MS)
    await Promise.all([server.stop(), client.stop()])
  })
})
