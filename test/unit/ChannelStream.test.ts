import { assert, describe, it } from "vitest"
import * as ChannelWire from "../../src/protocol/flow/ChannelWire.ts"
import { ChannelStream } from "../../src/session/ChannelStream.ts"
import { READ_NOTHING, READ_RESET, WRITE_STOPPED } from "../../src/session/FlowStream.ts"

const ROOM = 4 * 1024 * 1024

/** Two ends of one channel, which deliver when told to. */
const pair = (room = ROOM) => {
  const sent: Array<readonly [to: 0 | 1, message: Uint8Array]> = []
  const closedBy: Array<0 | 1> = []
  const over: Array<0 | 1> = []
  const make = (at: 0 | 1) =>
    new ChannelStream({
      channel: {
        send: (message) => sent.push([at === 0 ? 1 : 0, message]) > 0,
        bufferedAmount: () => 0,
        close: () => void closedBy.push(at),
        maxMessageBytes: 16 * 1024
      },
      room: { bytes: room },
      opened: at === 0,
      onOver: () => over.push(at)
    })
  const ends = [make(0), make(1)] as const
  const deliver = () => {
    for (let next = sent.shift(); next !== undefined; next = sent.shift()) {
      assert.isTrue(ends[next[0]].onMessage(next[1]))
    }
  }
  return { client: ends[0], connector: ends[1], sent, closedBy, over, deliver }
}
const readAll = (stream: ChannelStream): number => {
  const into = new Uint8Array(10_000)
  let all = 0
  for (let got = stream.read(into); got > 0; got = stream.read(into)) all += got
  return all
}

describe("ChannelStream", () => {
  it("ends each direction separately, and its opener closes the channel", () => {
    const { client, closedBy, connector, deliver, over } = pair()
    client.write(Uint8Array.of(1, 2, 3))
    assert.isTrue(client.finish())
    deliver()
    const into = new Uint8Array(8)
    assert.strictEqual(connector.read(into), 3)
    assert.deepStrictEqual([connector.readOver, connector.writeOver], [true, false])
    connector.write(Uint8Array.of(4))
    connector.finish()
    deliver()
    assert.deepStrictEqual(closedBy, [])
    assert.strictEqual(client.read(into), 1)
    assert.deepStrictEqual([client.readOver, client.writeOver, closedBy, over], [true, true, [0], [1, 0]])
    connector.onClosed()
  })

  it("waits for a slow reader, then goes on", () => {
    const { client, connector, deliver } = pair()
    const bulk = new Uint8Array(1_000_000)
    assert.strictEqual(client.write(bulk), ChannelWire.FIRST_WINDOW)
    deliver()
    assert.strictEqual(client.write(bulk), 0)
    let more = 0
    client.handler = { onReadable: () => undefined, onWritable: () => more++, onClosed: () => undefined }
    assert.strictEqual(readAll(connector), ChannelWire.FIRST_WINDOW)
    deliver()
    assert.isAbove(more, 0)
    assert.isAbove(client.write(bulk), ChannelWire.FIRST_WINDOW) // the window grows with a reader that keeps up
  })

  it("grows no window where there is no room left", () => {
    const { client, connector, deliver } = pair(0)
    const bulk = new Uint8Array(1_000_000)
    for (let round = 0; round < 8; round++) {
      assert.isAtMost(client.write(bulk), ChannelWire.FIRST_WINDOW)
      deliver()
      assert.isAtMost(readAll(connector), ChannelWire.FIRST_WINDOW)
      deliver()
    }
  })

  it("distinguishes a reset, an end, a stop and a loss", () => {
    const reset = pair()
    reset.client.write(Uint8Array.of(1))
    reset.client.reset()
    reset.deliver()
    assert.strictEqual(reset.connector.read(new Uint8Array(8)), READ_RESET)

    const stopped = pair()
    stopped.connector.stop()
    stopped.deliver()
    assert.strictEqual(stopped.client.write(Uint8Array.of(1)), WRITE_STOPPED)

    const gone = pair()
    let told = 0
    gone.client.handler = { onReadable: () => undefined, onWritable: () => undefined, onClosed: () => told++ }
    assert.strictEqual(gone.client.read(new Uint8Array(8)), READ_NOTHING)
    gone.client.onClosed()
    gone.client.onClosed()
    assert.deepStrictEqual([told, gone.client.readOver, gone.client.writeOver, gone.over], [1, true, true, [0]])
    assert.strictEqual(gone.client.write(Uint8Array.of(1)), WRITE_STOPPED)
  })

  it("refuses whatever breaks the protocol", () => {
    const { connector } = pair()
    assert.isFalse(connector.onMessage(ChannelWire.data(new Uint8Array(ChannelWire.FIRST_WINDOW + 1))))
    const ended = pair().connector
    assert.isTrue(ended.onMessage(ChannelWire.end))
    assert.isFalse(ended.onMessage(ChannelWire.data(Uint8Array.of(1))))
    for (const bad of [[], [9], [1, 0], [2, 0], [3, 0], [4], [4, 0, 0, 0], [4, 0, 0, 0, 0, 0]]) {
      assert.isFalse(pair().connector.onMessage(Uint8Array.from(bad)), JSON.stringify(bad))
    }
  })
})
