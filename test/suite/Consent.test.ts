/** When a peer falls silent: what still goes to its address, and what comes after. */
import { afterEach, describe, expect, it } from "vitest"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import * as PathMessage from "../../src/protocol/path/PathMessage.ts"
import { CONSENT_MS } from "../../src/transport/plane/Consent.ts"
import * as DirectRig from "./support/DirectRig.ts"
import { type Resource, settled } from "./support/SessionRig.ts"

const resources: Array<Resource> = []
afterEach(() => resources.splice(0).forEach(({ close }) => close()))

const onDirectPath = async () => {
  const it = await DirectRig.onDirectPath()
  resources.push(it.resource)
  return it
}

describe("consent to send", () => {
  it("lapses after 30 s without proof, until an answer", async () => {
    const { ask, clock, flow, resource, sent, way } = await onDirectPath()
    ask()
    way.open = false
    const before = sent.quic
    flow.write("b")
    await settled("QUIC tries", () => sent.quic > before)
    clock.ahead += CONSENT_MS
    const lapsed = sent.quic
    flow.write("c")
    ask()
    await new Promise((resolve) => {
      setTimeout(resolve, 500)
    })
    expect(sent.quic).toBe(lapsed)
    expect(sent.questions).toBeGreaterThan(0)
    way.open = true
    ask()
    await settled("what was written has come, once and in order", () => resource.received() === "abc")
  })

  it("is kept by the peer's questions alone", async () => {
    const { ask, clock, flow, resource, sent } = await onDirectPath()
    for (let turn = 0; turn < 3; turn++) {
      clock.ahead += CONSENT_MS - 1_000
      const before = sent.questions
      ask()
      await settled("it was asked and has answered", () => sent.questions >= before + 2)
    }
    const before = sent.byConnector
    flow.write("d")
    await settled("it came", () => resource.received() === "ad")
    await settled("the connector acknowledges it", () => sent.byConnector > before)
  })

  it("limits what is sent to an unproved address", async () => {
    const { ask, connector, sent, session } = await onDirectPath()
    const { peer } = session.client
    const { quic } = session.connector.peer
    const questions = sent.questions
    ask() // by its number the connector knows the path
    await settled("it was asked and has answered", () => sent.questions >= questions + 2)
    const box = peer.sealed({
      _tag: "Ping",
      txId: new Uint8Array(PathMessage.TX_ID_BYTES),
      pathId: peer.quic.activeSlot,
      flags: PathMessage.FLAG_ACTIVE,
      padTo: 0
    })!
    const forged = Buffer.concat([Buffer.alloc(Frame.DIRECT_HEAD_BYTES), box])
    Frame.writeDirectHead(forged, 0, forged.length)
    connector.router.onDatagrams(forged, DirectRig.VICTIM)
    expect(session.connector.path).toMatchObject({ remote: { host: DirectRig.VICTIM.address } })
    const download = () => {
      for (let i = 0; i < 20; i++) quic.sendDatagram(Buffer.alloc(1000))
    }
    download()
    await new Promise((resolve) => {
      setTimeout(resolve, 500)
    })
    expect(sent.toVictim).toBeGreaterThan(0)
    expect(sent.toVictim).toBeLessThan(6 * forged.length)
    // The path is the client's again as soon as it asks, and has answered.
    const before = sent.byConnector
    ask()
    await settled("it is proved", () => {
      download()
      return sent.byConnector >= before + 20
    })
  })
})
