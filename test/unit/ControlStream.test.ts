import { assert, it } from "vitest"
import { ControlStream } from "../../src/session/ControlStream.ts"
import { FLOW_RESET, type FlowStream, WRITE_STOPPED } from "../../src/session/FlowStream.ts"

/** A stream whose peer has gone. */
const gone = (): FlowStream => ({
  handler: null,
  readOver: true,
  writeOver: true,
  read: () => FLOW_RESET,
  write: () => WRITE_STOPPED,
  finish: () => true,
  reset: () => undefined,
  stop: () => undefined,
  abort: () => undefined,
  pause: () => undefined
})

it("reports once that it is broken", () => {
  const told: Array<string> = []
  const control = new ControlStream(gone(), {
    onMessage: () => undefined,
    onBroken: (why) => {
      told.push(why)
      control.send({ _tag: "Goaway", reason: why })
    }
  })
  control.send({ _tag: "Leg", kind: "relay-udp" })
  control.send({ _tag: "Leg", kind: "relay-tcp" })
  assert.deepStrictEqual(told, ["the peer stopped the control stream"])
})
