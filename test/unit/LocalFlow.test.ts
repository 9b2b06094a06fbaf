import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { connect, createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Duplex } from "node:stream"
import { afterAll, afterEach, describe, expect, it } from "vitest"
import * as LocalFlow from "../../src/transport/flow/LocalFlow.ts"

const dir = mkdtempSync(join(tmpdir(), "sallyport-local-flow-"))
afterAll(() => rmSync(dir, { recursive: true }))

const path = join(dir, "flows.sock")
const open: Array<() => void> = []
afterEach(() => {
  for (const close of open.splice(0)) close()
})

/** Two connected unix sockets. */
const pair = async (): Promise<{ readonly node: Socket; readonly program: Socket }> => {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(path)
  await once(server, "listening")
  const program = connect({ path, allowHalfOpen: true })
  const [node] = await once(server, "connection") as [Socket]
  open.push(() => void (server.close(), node.destroy(), program.destroy()))
  return { node, program }
}
const flow = async () => {
  const { node, program } = await pair()
  return { node: LocalFlow.atNode(node), program: LocalFlow.atProgram(program) }
}
const aTurn = () => new Promise((resolve) => void setImmediate(resolve))
const bytes = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, at) => at * 7 + (at >> 8)))
/** What is read up to the end or the error, and the code of that error. */
const readAll = (end: Duplex): Promise<{ readonly bytes: Buffer; readonly code: string | null }> =>
  new Promise((resolve) => {
    const got: Array<Buffer> = []
    const over = (code: string | null) => resolve({ bytes: Buffer.concat(got), code })
    end.on("data", (part: Buffer) => void got.push(part))
    end.once("end", () => over(null))
    end.once("error", (error: NodeJS.ErrnoException) => over(error.code ?? error.message))
    end.resume()
  })
const isSame = (one: Uint8Array, other: Uint8Array) => Buffer.compare(one, other) === 0

describe("LocalFlow", () => {
  it("carries bytes both ways, each with its end", async () => {
    const { node, program } = await flow()
    const [large, small] = [bytes(3_000_000), bytes(5)]
    program.end(large)
    expect(isSame((await readAll(node)).bytes, large)).toBe(true)
    node.write(small)
    node.end(large)
    const read = await readAll(program)
    expect(isSame(read.bytes, Buffer.concat([small, large]))).toBe(true)
    expect(read.code).toBeNull()
  })

  it("lets the program write after the node has ended", async () => {
    const { node, program } = await flow()
    node.end("over")
    expect(String((await readAll(program)).bytes)).toBe("over")
    program.end("still here")
    expect(String((await readAll(node)).bytes)).toBe("still here")
  })

  it("tells a reset from an end, after all bytes", async () => {
    const { node, program } = await flow()
    const some = bytes(100_000)
    await new Promise((resolve) => void node.write(some, resolve))
    program.once("readable", () => setImmediate(() => node.destroy()))
    const read = await readAll(program)
    expect(isSame(read.bytes, some)).toBe(true)
    expect([read.code, program.destroyed]).toEqual(["ECONNRESET", true])
  })

  it("keeps a reset until the program reads", async () => {
    const { node, program } = await flow()
    await new Promise((resolve) => void node.write("before", resolve))
    node.destroy()
    await once(node, "close")
    for (let turn = 0; turn < 20; turn++) await aTurn()
    expect(program.destroyed).toBe(false)
    expect(await readAll(program)).toEqual({ bytes: Buffer.from("before"), code: "ECONNRESET" })
  })

  it("keeps the bytes before a reset for a slow reader", async () => {
    const { node, program } = await flow()
    node.write("first")
    const got: Array<string> = []
    let code: string | undefined
    try {
      for await (const part of program) {
        got.push(String(part))
        if (got.length > 1) continue
        await new Promise((resolve) => void node.write("second", resolve))
        node.destroy()
        for (let turn = 0; turn < 20; turn++) await aTurn()
      }
    } catch (error) {
      code = (error as NodeJS.ErrnoException).code
    }
    expect([...got, code]).toEqual(["first", "second", "ECONNRESET"])
  })

  it("fails the writes of a program that does not read", async () => {
    const { node, program } = await flow()
    node.destroy()
    await once(node, "close")
    program.write("into nothing")
    const [error] = await once(program, "error") as [NodeJS.ErrnoException]
    expect(error.code).toBe("EPIPE")
  })

  it("ends the node's end when the program goes", async () => {
    const { node, program } = await flow()
    node.resume()
    const ended = once(node, "end")
    program.destroy()
    await ended
  })

  it("reads frames however they are cut", async () => {
    const { node, program } = await pair()
    const end = LocalFlow.atProgram(program)
    const read = readAll(end)
    for (const byte of [0, 0, 0, 2, 104, 105, 0, 0, 0, 1, 33, 0, 0, 0, 0]) {
      await new Promise<unknown>((resolve) => void node.write(Uint8Array.of(byte), resolve))
      await aTurn()
    }
    expect(await read).toEqual({ bytes: Buffer.from("hi!"), code: null })
  })

  it("stops the node when the program reads nothing", async () => {
    const { node, program } = await flow()
    program.once("readable", () => {}) // it reads what it may hold, and no more
    let written = 0
    while (node.write(bytes(65_536)) && written < 64_000_000) {
      written += 65_536
      await aTurn()
    }
    expect(written).toBeLessThan(8_000_000)
    const rest = readAll(program)
    node.end()
    expect((await rest).bytes.length).toBe(written + 65_536)
  })
})
