import { assert, it } from "vitest"
import type { SignalingEvent } from "../../src/actors/RelaySignalingRpcs.ts"
import { LastSnapshot } from "../../src/actors/signaling/LastSnapshot.ts"

const SIGNED = { payload: new Uint8Array(1), signature: new Uint8Array(64) }
const NEWER = { payload: new Uint8Array(2), signature: new Uint8Array(64) }
const snapshot = (serverTime: number): Extract<SignalingEvent, { readonly _tag: "Snapshot" }> => ({
  _tag: "Snapshot",
  version: 1,
  serverTime,
  relay: { host: "relay", httpsPort: 443, udpPort: 3478 },
  relays: [],
  credential: SIGNED
})

it("tells an actor that begins late what is true by then, the relay's time above all", () => {
  const last = new LastSnapshot()
  assert.isNull(last.read(1_000))
  last.onEvent({ _tag: "CredentialRenewed", credential: NEWER }, 1_000)
  assert.isNull(last.read(1_000))

  last.onEvent(snapshot(5_000), 1_000_400)
  assert.deepEqual(last.read(1_000_400), snapshot(5_000))
  last.onEvent({ _tag: "CredentialRenewed", credential: NEWER }, 1_060_000)
  assert.deepEqual(last.read(1_000_400 + 3_600_000), { ...snapshot(8_600), credential: NEWER })

  last.onEvent(snapshot(9_000), 5_000_000)
  assert.deepEqual(last.read(5_000_999), snapshot(9_000))
})
