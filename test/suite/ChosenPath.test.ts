/** A path that was chosen and works is taken, whatever became of QUIC's own first packets on it. */
import { expect, it } from "vitest"
import { keyOf } from "../../src/protocol/path/PathRef.ts"
import { TO_CONNECTOR, withDirectWay } from "./support/DirectRig.ts"
import { settled } from "./support/SessionRig.ts"

/** QUIC tries three times, each later than the one before. */
const GIVEN_UP_MS = 5_000

it("is requested again when it works after QUIC's failure", async () => {
  const { ask, flow, peer, resource, sent, way } = await withDirectWay()
  way.quic = false
  peer.select(TO_CONNECTOR)
  await settled("QUIC has asked", () => sent.quic > 0)
  let [last, since] = [sent.quic, performance.now()]
  await settled("QUIC asks no more", () => {
    if (sent.quic !== last) [last, since] = [sent.quic, performance.now()]
    return performance.now() - since > GIVEN_UP_MS
  })
  way.quic = true
  expect(keyOf(peer.path)).not.toBe(keyOf(TO_CONNECTOR))
  ask()
  await settled("the session is on the chosen path", () => keyOf(peer.path) === keyOf(TO_CONNECTOR))
  flow.write("a")
  await settled("the flow goes on", () => resource.received() === "a")
  resource.close()
})
