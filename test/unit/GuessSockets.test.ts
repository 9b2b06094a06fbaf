import { createSocket, type Socket } from "node:dgram"
import { once } from "node:events"
import { afterEach, describe, expect, it } from "vitest"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import { SOCKETS } from "../../src/protocol/path/PortGuess.ts"
import { type Endpoint, PacketRouter } from "../../src/transport/plane/PacketRouter.ts"
import { GuessSockets } from "../../src/transport/udp/GuessSockets.ts"
import * as UdpPort from "../../src/transport/udp/UdpPort.ts"

const HINT = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)
const HERE = "127.0.0.1"

/** A direct frame around something sealed under `HINT`. */
const sealed = (): Buffer => {
  const frame = Buffer.concat([Buffer.alloc(Frame.DIRECT_HEAD_BYTES), Uint8Array.of(1), HINT, Buffer.alloc(20)])
  Frame.writeDirectHead(frame, 0, frame.length)
  return frame
}

const opened: Array<{ close: () => unknown }> = []
afterEach(() => {
  for (const one of opened.splice(0)) one.close()
})

const setup = async () => {
  const peer: Socket = createSocket("udp4")
  opened.push(peer)
  peer.bind(0, HERE)
  await once(peer, "listening")
  const router = new PacketRouter(() => {})
  const refused: Array<readonly [number, string]> = []
  let failing = false
  const sockets = new GuessSockets({
    router,
    segment: 1_358,
    onSampled: () => {},
    onRefused: (_, count, code) => void refused.push([count, code]),
    open: (options) =>
      failing
        ? Promise.reject(new UdpPort.UdpOpenError({ host: "", port: 0, code: "EMFILE", message: "" }))
        : UdpPort.open(options)
  })
  opened.push({ close: () => sockets.forgetAll() })
  const to = { host: HERE, port: peer.address().port }
  return { peer, router, sockets, to, refused, fail: () => (failing = true) }
}

describe("sockets for port guessing", () => {
  it("keep the proved socket, and close the others", async () => {
    const { peer, router, sockets, to } = await setup()
    const came: Array<number> = []
    peer.on("message", (_, from) => came.push(from.port))
    const seen: Array<number> = []
    const session: Endpoint = {
      onPacket: () => {},
      onSealed: (_, address, port) => {
        router.onProved(address!, port)
        seen.push(port)
      }
    }
    router.addHint(HINT, session)
    await sockets.sample("s", 2, null)
    await sockets.openTo("s", to, 5, sealed())
    expect(sockets.count).toBe(5)
    await expect.poll(() => new Set(came).size).toBe(5)
    const [, chosen] = came
    peer.send(sealed(), chosen, HERE)
    await expect.poll(() => seen).toEqual([to.port])
    expect(sockets.count).toBe(1)
    came.length = 0
    router.portTo(4, to.host, to.port)!.send(sealed(), 0, 31, to.port, to.host)
    await expect.poll(() => came).toEqual([chosen])
    sockets.close("s")
    expect(sockets.count).toBe(1)
    sockets.forget("s")
    expect(sockets.count).toBe(0)
    expect(router.portTo(4, to.host, to.port)).toBeNull()
  })

  it("never exceed an attempt's share, and report failures", async () => {
    const { fail, refused, sockets, to } = await setup()
    await sockets.sample("s", 8, null)
    await Promise.all([sockets.openTo("s", to, 200, sealed()), sockets.openTo("s", to, 200, sealed())])
    expect(sockets.count).toBe(SOCKETS)
    sockets.close("s")
    expect(sockets.count).toBe(0)
    fail()
    await sockets.sample("s", 3, null)
    expect(refused).toEqual([[3, "EMFILE"]])
  })
})
