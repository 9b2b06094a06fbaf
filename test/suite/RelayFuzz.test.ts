import { assert, describe, it } from "@effect/vitest"
import { Buffer } from "node:buffer"
import { randomBytes, randomInt } from "node:crypto"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import * as World from "./support/RelayWorld.ts"

const DATAGRAMS = 100_000
const PER_TURN = 250

/** Something that a relay might take for one of its own. */
const hostile = (pair: World.Pair): Uint8Array => {
  const samples: ReadonlyArray<() => Uint8Array> = [
    () => randomBytes(randomInt(1, 200)),
    () => Stun.encodeRequest({ txId: randomBytes(12) }),
    () => RelayWire.encode({ _tag: "BindRequest", nonce: randomBytes(8) }),
    () =>
      RelayWire.encode({
        _tag: "Bind",
        nonce: randomBytes(8),
        cookie: randomBytes(20),
        signature: randomBytes(64),
        credential: { payload: randomBytes(100), signature: randomBytes(64) }
      }),
    () => RelayWire.encode({ _tag: "Open", nonce: randomBytes(8), ticket: pair.ticket }),
    () => RelayWire.encode({ _tag: "Ping", echo: randomBytes(8) }),
    () => RelayWire.encode({ _tag: "Close", tag: pair.clientTag }),
    () => RelayWire.encode({ _tag: "Refused", nonce: randomBytes(8), asked: "None", code: "revoked" }),
    () => data(pair.clientTag),
    () => data(pair.connectorTag),
    () => Buffer.concat([data(pair.clientTag), randomBytes(40), data(1)])
  ]
  const bytes = Buffer.from(samples[randomInt(samples.length)]!())
  for (let i = randomInt(4); i > 0; i--) bytes[randomInt(bytes.length)] = randomInt(256)
  return bytes.subarray(0, randomInt(4) === 0 ? randomInt(1, bytes.length + 1) : bytes.length)
}
const data = (tag: number): Uint8Array => {
  const bytes = Buffer.alloc(60, 0x40)
  Frame.writeRelayedHead(bytes, 0, 60, tag)
  return bytes
}

/** Bytes in use after a full collection. */
const heap = (): number => {
  setFlagsFromString("--expose-gc")
  const gc: unknown = runInNewContext("gc")
  if (typeof gc === "function") gc()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

const GROWTH_BYTES = 4 * 1024 * 1024

describe("A relay under 100,000 hostile datagrams", () => {
  it("loses no session, forwards no stranger's frame, and stays small", async () => {
    const relay = await World.Relay.start()
    const { client, connector, pair } = await World.connect(relay)
    const stranger = await new World.Peer(relay.port).open()
    const fromFuzz = { address: "127.0.0.9", port: 9999 } // straight into the server: the kernel would drop some
    let good = 0
    let bad = 0
    connector.onData = (bytes) => {
      if (bytes.length === 700 && bytes.subarray(8).every((byte) => byte === 0x55)) good++
      else bad++
    }
    let sent = 0
    let before = 0
    for (let done = 0; done < DATAGRAMS; done += PER_TURN) {
      for (let i = 0; i < PER_TURN; i++) {
        const bytes = hostile(pair)
        if (i % 10 === 0) stranger.sendRaw(bytes)
        else relay.server.onUdp(bytes, { ...fromFuzz, port: 1 + ((done + i) % 60_000) }, 0)
      }
      client.sendData(pair.clientTag, 700, 2, 0x55)
      sent += 2
      await new Promise((resolve) => setImmediate(resolve))
      stranger.received.length = 0
      if (done === DATAGRAMS / 4) before = heap()
    }
    await World.until(() => good === sent)
    // Buffers of datagrams that were read are freed late; what is truly kept is kept each time.
    let grown = Infinity
    for (let look = 0; look < 20 && grown >= GROWTH_BYTES; look++) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      grown = heap() - before
    }
    assert.strictEqual(bad, 0)
    assert.deepStrictEqual([relay.server.nodes, relay.server.sessions], [2, 1])
    assert.strictEqual(relay.server.stats.forwarded.packets >= sent / 2, true)
    assert.isAbove(relay.server.stats.drops.foreignSource, 1000)
    assert.isBelow(grown, GROWTH_BYTES)
    assert.isFalse(client.seen("Lost").length > 0 || connector.seen("Lost").length > 0)
    for (const one of [client, connector, stranger, relay.udp]) one.close()
  })
})
