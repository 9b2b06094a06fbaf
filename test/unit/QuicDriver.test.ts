import { afterEach, assert, beforeEach, describe, it, vi } from "vitest"
import * as QuicDriver from "../../src/transport/http3/QuicDriver.ts"
import type { QuicConnection } from "../../src/transport/quic/engine/QuicEngine.ts"

const PERIODS = 4
const KEEPALIVE_MS = 15_000

/** A connection that is up and sends only what it is told to. */
const setup = (role: "client" | "server") => {
  let isPingDue = false
  const seen = { packets: 0, ended: 0, answers: true }
  const quic = {
    ping: () => void (isPingDue = true),
    receive: () => true,
    send: () => {
      if (!isPingDue) return 0
      isPingDue = false
      return 40
    },
    sendSlot: () => 0,
    timeoutMs: () => null,
    isEstablished: () => true,
    isClosed: () => false,
    isTimedOut: () => false,
    fault: () => null,
    replenishIds: () => undefined,
    nextPathEvent: () => null,
    stats: () => ({ packetsReceived: 0 }),
    close: () => undefined
  } as unknown as QuicConnection // the part of it that is used here
  const driver = new QuicDriver.QuicDriver({
    quic,
    role,
    now: () => performance.now(),
    serve: () => undefined,
    transmit: () => {
      seen.packets++
      if (seen.answers) driver.receive(0, new Uint8Array(40))
    },
    onClosed: () => void seen.ended++,
    onGone: () => undefined
  })
  return { driver, seen }
}

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout", "setImmediate", "performance"]
  })
})
afterEach(() => void vi.useRealTimers())

describe("QuicDriver", () => {
  it.each(["client", "server"] as const)("keeps an idle connection alive, period after period (%s)", async (role) => {
    const { driver, seen } = setup(role)
    driver.schedule()
    await vi.advanceTimersByTimeAsync(1_000)
    for (let period = 1; period <= PERIODS; period++) {
      const before = seen.packets
      await vi.advanceTimersByTimeAsync(KEEPALIVE_MS)
      assert.strictEqual(seen.packets - before, 1, `period ${period}`)
    }
    assert.strictEqual(seen.ended, 0)
    driver.close(0, "over")
    const before = seen.packets
    await vi.advanceTimersByTimeAsync(PERIODS * KEEPALIVE_MS)
    assert.deepStrictEqual([seen.packets - before, seen.ended], [0, 1])
  })

  it("gives a peer up that answers no keepalive any more", async () => {
    const { driver, seen } = setup("client")
    driver.schedule()
    await vi.advanceTimersByTimeAsync(PERIODS * KEEPALIVE_MS + 1_000)
    assert.strictEqual(seen.ended, 0)
    seen.answers = false
    await vi.advanceTimersByTimeAsync(KEEPALIVE_MS + 5_000)
    assert.strictEqual(seen.ended, 1)
  })
})
