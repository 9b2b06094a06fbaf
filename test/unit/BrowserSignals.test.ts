/** The signals of a connector's session with a browser, whose side the test plays. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createPublicKey, diffieHellman, generateKeyPairSync } from "node:crypto"
import * as BrowserSignals from "../../src/actors/webrtc/BrowserSignals.ts"
import type { IceSignal } from "../../src/protocol/candidate/IceSignal.ts"
import * as IceSignals from "../../src/protocol/candidate/IceSignal.ts"
import { toBytes } from "../../src/protocol/trust/NodeKey.ts"
import * as SignalSeal from "../../src/protocol/trust/SignalSeal.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as Keys from "../../src/services/identity/Keys.ts"

const END: IceSignal = { kind: "end", attempt: 1 }

const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}
const [client, connector, stranger] = [newKey(), newKey(), newKey()]
const parties = { session: "ab".repeat(16), clientKey: client.publicKey, connectorKey: connector.publicKey }

/** A session of the connector, what it sends, and the browser's own hello. */
const setup = () => {
  const sent: Array<Uint8Array> = []
  const seen: Array<IceSignal> = []
  const signals = BrowserSignals.make({
    sign: (message) => Crypto.sign(connector.privateKey, message),
    forward: (_, box) => Effect.sync(() => void sent.push(box)),
    servers: Effect.succeed([])
  })
  const it: BrowserSignals.Signalled = {
    parties,
    session: { onSignal: (signal) => void seen.push(signal) },
    seal: null
  }
  const own = generateKeyPairSync("x25519")
  const ephemeral = new Uint8Array(Buffer.from(own.publicKey.export({ format: "jwk" }).x ?? "", "base64url"))
  const helloBy = ({ privateKey }: typeof client) => {
    const signed = SignalSeal.signedBytes("client", parties, { client: ephemeral, connector: null })
    return SignalSeal.encodeHello({ ephemeral, signature: Crypto.sign(privateKey, signed) })
  }
  /** Makes the browser's seal of the connector's hello. */
  const agree = (box: Uint8Array | undefined) => {
    const hello = box === undefined ? null : SignalSeal.decodeHello(box)
    if (hello === null) throw new Error("no hello")
    const both = { client: ephemeral, connector: hello.ephemeral }
    const signed = SignalSeal.signedBytes("connector", parties, both)
    assert.isTrue(Crypto.verify(toBytes(connector.publicKey), signed, hello.signature))
    const jwk = { kty: "OKP", crv: "X25519", x: Buffer.from(hello.ephemeral).toString("base64url") }
    const secret = diffieHellman({
      privateKey: own.privateKey,
      publicKey: createPublicKey({ key: jwk, format: "jwk" })
    })
    return Effect.promise(() =>
      SignalSeal.SignalSeal.make({
        ...parties,
        side: "client",
        secret: new Uint8Array(secret),
        clientEphemeral: ephemeral,
        connectorEphemeral: hello.ephemeral
      })
    )
  }
  return { agree, helloBy, it, seen, sent, signals }
}

describe("signals with a browser", () => {
  it.effect("are sealed both ways after one hello each", () =>
    Effect.gen(function*() {
      const { agree, helloBy, it, seen, sent, signals } = setup()
      yield* signals.send(it, END)
      assert.lengthOf(sent, 0)
      yield* signals.onBox(it, helloBy(client))
      const browser = yield* agree(sent[0])
      yield* signals.onBox(it, yield* Effect.promise(() => browser.seal(IceSignals.encode(END))))
      assert.deepStrictEqual(seen, [END])
      yield* signals.send(it, END)
      const plain = yield* Effect.promise(() => browser.open(sent[1] ?? new Uint8Array(0)))
      assert.deepStrictEqual(plain === null ? null : IceSignals.decode(plain), END)
      yield* signals.onBox(it, helloBy(client))
      assert.lengthOf(sent, 2)
    }))

  it.effect("are not agreed with another key", () =>
    Effect.gen(function*() {
      const { helloBy, it, sent, signals } = setup()
      yield* signals.onBox(it, helloBy(stranger))
      assert.isNull(it.seal)
      assert.lengthOf(sent, 0)
    }))
})
