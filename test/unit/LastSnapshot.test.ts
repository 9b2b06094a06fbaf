import { assert, it } from "vitest"
import { LastSnapshot } from "../../src/actors/signaling/LastSnapshot.ts"
import type { SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"

const SIGNED = { payload: new Uint8Array(1), signature: new Uint8Array(64) }
const NEWER = { payload: new Uint8Array(2), signature: new Uint8Array(64) }
const snapshot = (version: number): Extract<SignalingEvent, { readonly _tag: "Snapshot" }> => ({
  _tag: "Snapshot",
  version,
  serverTime: 1_000,
  relay: { host: "relay", httpsPort: 443, udpPort: 3478 },
  relays: [],
  credential: SIGNED
})

it("gives a late subscriber the last snapshot with later changes", () => {
  const last = new LastSnapshot()
  assert.isNull(last.read())
  last.onEvent({ _tag: "CredentialRenewed", credential: NEWER })
  assert.isNull(last.read())

  last.onEvent(snapshot(1))
  assert.deepEqual(last.read(), snapshot(1))
  last.onEvent({ _tag: "CredentialRenewed", credential: NEWER })
  assert.deepEqual(last.read(), { ...snapshot(1), credential: NEWER })

  last.onEvent(snapshot(2))
  assert.deepEqual(last.read(), snapshot(2))
})
