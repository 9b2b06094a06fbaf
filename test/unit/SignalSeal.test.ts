import { diffieHellman, generateKeyPairSync } from "node:crypto"
import { assert, describe, it } from "vitest"
import { fromBytes } from "../../src/protocol/trust/NodeKey.ts"
import * as SignalSeal from "../../src/protocol/trust/SignalSeal.ts"

const key = (byte: number) => fromBytes(new Uint8Array(32).fill(byte))
const PARTIES = { session: "ab".repeat(16), clientKey: key(1), connectorKey: key(2) }
const HELLO = { clientEphemeral: new Uint8Array(32).fill(3), connectorEphemeral: new Uint8Array(32).fill(4) }
const secret = () => {
  const [own, theirs] = [generateKeyPairSync("x25519"), generateKeyPairSync("x25519")]
  return new Uint8Array(diffieHellman({ privateKey: own.privateKey, publicKey: theirs.publicKey }))
}
const both = async (changes: Partial<typeof PARTIES & typeof HELLO> = {}) => {
  const agreed = { ...PARTIES, ...HELLO, secret: secret() }
  return [
    await SignalSeal.SignalSeal.make({ ...agreed, side: "client" }),
    await SignalSeal.SignalSeal.make({ ...agreed, ...changes, side: "connector" })
  ] as const
}
const text = (bytes: Uint8Array | null) => bytes === null ? null : new TextDecoder().decode(bytes)
const bytes = (words: string) => new TextEncoder().encode(words)

describe("SignalSeal", () => {
  it("carries both ways, and shows nothing of it", async () => {
    const [client, connector] = await both()
    const box = await client.seal(bytes("192.168.1.20"))
    assert.strictEqual(box.length, 12 + SignalSeal.SEAL_BYTES)
    assert.notInclude(Buffer.from(box).toString("latin1"), "192.168")
    assert.strictEqual(text(await connector.open(box)), "192.168.1.20")
    assert.strictEqual(text(await client.open(await connector.seal(bytes("answer")))), "answer")
  })

  it("refuses repeated, older, changed and own messages", async () => {
    const [client, connector] = await both()
    const [first, second, third] = [
      await client.seal(bytes("1")),
      await client.seal(bytes("2")),
      await client.seal(bytes("3"))
    ]
    assert.isNull(await client.open(first))
    assert.strictEqual(text(await connector.open(second)), "2")
    assert.isNull(await connector.open(second))
    assert.isNull(await connector.open(first))
    for (const at of third.keys()) {
      const changed = Uint8Array.from(third)
      changed[at] = (changed[at] ?? 0) ^ 1
      assert.isNull(await connector.open(changed), `byte ${at}`)
    }
    assert.strictEqual(text(await connector.open(third)), "3")
    assert.isNull(await connector.open(new Uint8Array(0)))
  })

  it("belongs to one session, node pair and key pair", async () => {
    const others = [
      { session: "cd".repeat(16) },
      { clientKey: key(9) },
      { connectorKey: key(9) },
      { clientEphemeral: new Uint8Array(32).fill(9) },
      { connectorEphemeral: new Uint8Array(32).fill(9) }
    ]
    for (const other of others) {
      const [client, connector] = await both(other)
      assert.isNull(await connector.open(await client.seal(bytes("offer"))), JSON.stringify(Object.keys(other)))
    }
  })

  it("signs side, session, nodes and ephemeral keys", () => {
    const ephemerals = { client: HELLO.clientEphemeral, connector: HELLO.connectorEphemeral }
    const all = [
      SignalSeal.signedBytes("client", PARTIES, { ...ephemerals, connector: null }),
      SignalSeal.signedBytes("connector", PARTIES, ephemerals),
      SignalSeal.signedBytes("connector", { ...PARTIES, session: "cd".repeat(16) }, ephemerals),
      SignalSeal.signedBytes("connector", { ...PARTIES, clientKey: key(5) }, ephemerals),
      SignalSeal.signedBytes("connector", PARTIES, { ...ephemerals, client: ephemerals.connector })
    ].map((it) => Buffer.from(it).toString("hex"))
    assert.strictEqual(new Set(all).size, all.length)
    const hello = { ephemeral: HELLO.clientEphemeral, signature: new Uint8Array(64).fill(7) }
    const encoded = SignalSeal.encodeHello(hello)
    assert.deepStrictEqual(SignalSeal.decodeHello(encoded), hello)
    for (const wrong of [encoded.subarray(1), encoded.subarray(0, -1), Uint8Array.of(...encoded, 0)]) {
      assert.isNull(SignalSeal.decodeHello(wrong))
    }
  })
})
