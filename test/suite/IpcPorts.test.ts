/** Ports across two processes, of which both are this one: what each sends is copied as an IPC channel would copy it. */
import { once } from "node:events"
import { deserialize, serialize } from "node:v8"
import { MessageChannel, type MessagePort, receiveMessageOnPort } from "node:worker_threads"
import { afterEach, describe, expect, it } from "vitest"
import * as IpcPorts from "../../src/actors/runtime/port/IpcPorts.ts"

const open: Array<MessagePort> = []
afterEach(() => open.splice(0).forEach((port) => port.close()))

const channel = () => {
  const { port1, port2 } = new MessageChannel()
  open.push(port1, port2)
  return [port1, port2] as const
}

/** `reads`: whether the child takes what it is sent. */
const pair = ({ reads = true } = {}) => {
  const failed: Array<string> = []
  const crossing = (to: () => IpcPorts.IpcPorts) => (message: unknown, done: () => void) => {
    const copy: unknown = deserialize(serialize(message))
    if (!reads) return
    setImmediate(() => {
      done()
      to().onMessage(copy)
    })
  }
  const parent: IpcPorts.IpcPorts = IpcPorts.make("parent", { send: crossing(() => child) }, (why) => failed.push(why))
  const child: IpcPorts.IpcPorts = IpcPorts.make("child", { send: crossing(() => parent) }, (why) => failed.push(why))
  const [here, inParent] = channel()
  const [there, inChild] = channel()
  parent.open(0, inParent)
  child.open(0, inChild)
  return { child, failed, here, parent, there }
}

const next = async (port: MessagePort): Promise<unknown> => (await once(port, "message"))[0]

describe("ports between processes", () => {
  it("carry messages both ways, in order", async () => {
    const { here, there } = pair()
    const seen: Array<unknown> = []
    const all = new Promise<void>((resolve) => {
      there.on("message", (message) => {
        seen.push(message)
        if (seen.length === 1_000) resolve()
      })
    })
    for (let n = 0; n < 1_000; n++) here.postMessage({ n })
    await all
    expect(seen).toEqual(Array.from({ length: 1_000 }, (_, n) => ({ n })))
    there.postMessage(new Map([["bytes", Buffer.from("abc")]]))
    expect(await next(here)).toEqual(new Map([["bytes", new Uint8Array(Buffer.from("abc"))]]))
  })

  it.each(["parent", "child"] as const)(
    "hand over ports from the %s that still work",
    async (from) => {
      const { here, there } = pair()
      const [sender, receiver] = from === "parent" ? [here, there] : [there, here]
      for (let turn = 0; turn < 3; turn++) {
        const [mine, theirs] = channel()
        mine.postMessage("before")
        sender.postMessage({ tag: "Connect", payload: { port: theirs, turn } }, [theirs])
        const { payload } = await next(receiver) as { payload: { port: MessagePort; turn: number } }
        expect(payload.turn).toBe(turn)
        expect(await next(payload.port)).toBe("before")
        payload.port.postMessage("answer")
        expect(await next(mine)).toBe("answer")
        const closed = once(payload.port, "close")
        mine.postMessage("last")
        mine.close()
        expect(await next(payload.port)).toBe("last")
        await closed
      }
    }
  )

  it("are all closed when the other process is gone", async () => {
    const { here, parent } = pair()
    const [mine, theirs] = channel()
    here.postMessage({ payload: { port: theirs } }, [theirs])
    const closed = [once(here, "close"), once(mine, "close")]
    await new Promise(setImmediate)
    parent.close()
    await Promise.all(closed)
  })

  it("give up once on a process that reads nothing", async () => {
    const { failed, here } = pair({ reads: false })
    for (let n = 0; n < IpcPorts.MAX_WAITING + 10; n++) here.postMessage(n)
    while (failed.length === 0) await new Promise(setImmediate)
    await new Promise(setImmediate)
    expect(failed).toEqual([`it has not read its last ${IpcPorts.MAX_WAITING} messages`])
  })

  it("refuse a port hidden deeper than in a payload", async () => {
    const { failed, here } = pair()
    const [, theirs] = channel()
    here.postMessage({ payload: { deeper: { port: theirs } } }, [theirs])
    while (failed.length === 0) await new Promise(setImmediate)
    expect(failed[0]).toContain("cannot be copied")
    expect(receiveMessageOnPort(theirs)).toBeUndefined()
  })
})
