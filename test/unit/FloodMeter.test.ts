import { describe, expect, it } from "vitest"
import { BURST_BYTES, FloodMeter, IDLE_BYTES_PER_SECOND } from "../../src/transport/quic/FloodMeter.ts"

const MIB = 1024 * 1024
const receive = (meter: FloodMeter, bytes: number) => {
  for (let left = bytes; left > 0; left -= 1024) meter.received(Math.min(left, 1024))
}

describe("FloodMeter", () => {
  it("balances unread bytes when its reader gives up", () => {
    const meter = new FloodMeter(0)
    meter.allow(16 * MIB)
    receive(meter, BURST_BYTES + 12 * MIB) // waits for its reader: explained by what is allowed
    expect(meter.exhausted(0)).toBe(false)
    meter.forgive(16 * MIB)
    meter.allow(-16 * MIB)
    expect(meter.exhausted(0)).toBe(false)
    receive(meter, 4 * MIB) // was on its way
    expect(meter.exhausted(0)).toBe(false)
    receive(meter, BURST_BYTES)
    expect(meter.exhausted(0)).toBe(true)
  })

  it("forgives no byte twice, and only for a while", () => {
    const meter = new FloodMeter(0)
    meter.forgive(4 * MIB)
    receive(meter, 4 * MIB + BURST_BYTES + 1)
    expect(meter.exhausted(0)).toBe(true)
    const late = new FloodMeter(0)
    late.forgive(4 * MIB)
    expect(late.exhausted(10_000)).toBe(false)
    receive(late, BURST_BYTES + 1)
    expect(late.exhausted(10_000)).toBe(true)
  })

  it("lets time fill no more than a burst", () => {
    const meter = new FloodMeter(0)
    receive(meter, IDLE_BYTES_PER_SECOND * 60 + BURST_BYTES)
    expect(meter.exhausted(61_000)).toBe(false)
    expect(meter.exhausted(10_000_000)).toBe(false)
    receive(meter, BURST_BYTES + 1)
    expect(meter.exhausted(10_000_000)).toBe(true)
  })

  it("pardons where most packets could not be opened", () => {
    const meter = new FloodMeter(0)
    receive(meter, 2 * BURST_BYTES)
    expect(meter.exhausted(0)).toBe(true)
    expect(meter.convicts(10)).toBe(false)
    expect(meter.exhausted(0)).toBe(false)
    receive(meter, 2 * BURST_BYTES)
    expect(meter.exhausted(0)).toBe(true)
    expect(meter.convicts(10 + 2 * BURST_BYTES / 1024)).toBe(true)
  })
})
