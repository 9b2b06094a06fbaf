import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "vitest"
import type { Verdict } from "../../src/protocol/flow/FlowWire.ts"
import type { ListenAt } from "../../src/protocol/flow/LocalListener.ts"
import { ForwardServer } from "../../src/transport/flow/ForwardServer.ts"

const REFUSED: Verdict = { code: "refused", reason: "nobody listens there" }

/** Connects to a forward whose flow is refused. Resolves with how the connection ends. */
const refused = async (at: ListenAt, sends: string) => {
  const server = new ForwardServer({
    listen: at,
    connect: ({ answer }) => setImmediate(() => assert.isFalse(answer(REFUSED)))
  })
  const address = await server.start()
  try {
    const socket = net.connect({ ...address, allowHalfOpen: true })
    await once(socket, "connect")
    if (sends !== "") socket.write(sends)
    socket.resume()
    return await new Promise<string>((resolve) => {
      socket.once("end", () => resolve("end"))
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    })
  } finally {
    await server.stop()
  }
}

describe("ForwardServer", () => {
  it("resets a TCP connection whose flow is refused", async () => {
    for (const sends of ["", "hello"]) {
      assert.strictEqual(await refused({ host: "127.0.0.1", port: 0 }, sends), "ECONNRESET", sends)
    }
  })

  it("closes a unix socket whose flow is refused", async () => {
    const dir = mkdtempSync(join(tmpdir(), "sallyport-forward-"))
    try {
      assert.strictEqual(await refused({ path: join(dir, "door") }, ""), "end")
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })
})
