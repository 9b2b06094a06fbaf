import { describe, expect, it } from "vitest"
import { OVERHEAD_BYTES, ProbeSeal, REPLAY_WINDOW, SECRET_BYTES } from "../../src/transport/probe/ProbeSeal.ts"

const secret = Uint8Array.from({ length: SECRET_BYTES }, (_, i) => i)
const text = (s: string) => new TextEncoder().encode(s)
const ends = () => ({
  client: new ProbeSeal({ secret, role: "client" }),
  connector: new ProbeSeal({ secret, role: "connector" })
})
const flip = (bytes: Uint8Array, at: number) => Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte))

describe("sealed path messages", () => {
  it("open at the other end under the expected hint", () => {
    const { client, connector } = ends()
    const there = client.seal(text("ping"))
    expect(connector.open(there)).toEqual(Buffer.from("ping"))
    expect(client.open(connector.seal(text("pong")))).toEqual(Buffer.from("pong"))
    expect(there[0]).toBe(1)
    expect(there.subarray(1, 9)).toEqual(Buffer.from(connector.hintIn))
    expect(client.hintOut).toEqual(connector.hintIn)
    expect(client.hintIn).not.toEqual(client.hintOut)
    expect(there).toHaveLength(4 + OVERHEAD_BYTES)
    expect(connector.open(client.seal(new Uint8Array(0)))).toHaveLength(0)
  })

  it("are refused when any bit was changed", () => {
    const { client, connector } = ends()
    const good = client.seal(text("hello"))
    for (let i = 0; i < good.length; i++) expect(typeof connector.open(flip(good, i)), `byte ${i}`).toBe("string")
    expect(connector.open(good)).toEqual(Buffer.from("hello"))
  })

  it("are refused from another secret or direction", () => {
    const { client, connector } = ends()
    const other = new ProbeSeal({ secret: secret.map((b) => b ^ 1), role: "client" })
    expect(connector.open(other.seal(text("x")))).toBe("not_ours")
    expect(client.open(client.seal(text("x")))).toBe("not_ours")
    const forged = Uint8Array.from(other.seal(text("x")))
    forged.set(connector.hintIn, 1)
    expect(connector.open(forged)).toBe("forged")
  })

  it("count once, in any order within the window", () => {
    const { client, connector } = ends()
    const sent = Array.from({ length: 3 * REPLAY_WINDOW }, (_, i) => client.seal(Uint8Array.of(i)))
    expect(connector.open(sent[70]!)).toHaveLength(1)
    expect(connector.open(sent[70]!)).toBe("replayed")
    expect(connector.open(sent[7]!)).toHaveLength(1) // 63 behind
    expect(connector.open(sent[7]!)).toBe("replayed")
    expect(connector.open(sent[6]!)).toBe("replayed") // 64 behind
    expect(connector.open(sent[150]!)).toHaveLength(1)
    expect(connector.open(sent[70]!)).toBe("replayed")
    for (let i = 149; i > 150 - REPLAY_WINDOW; i--) expect(connector.open(sent[i]!), `${i}`).toHaveLength(1)
    for (let i = 149; i > 150 - REPLAY_WINDOW; i--) expect(connector.open(sent[i]!), `${i}`).toBe("replayed")
  })

  it("do not move the window when forged", () => {
    const { client, connector } = ends()
    const far = Uint8Array.from(client.seal(text("far")))
    const good = client.seal(text("good"))
    far[9] = 0xff // a counter of about 2^64
    expect(connector.open(far)).toBe("forged")
    expect(connector.open(good)).toEqual(Buffer.from("good"))
  })

  it("never throw for noise of any length", () => {
    const { connector } = ends()
    for (let length = 0; length < 200; length++) {
      const noise = Uint8Array.from({ length }, (_, i) => (i * 31 + length) & 255)
      if (length > 9) noise.set([1, ...connector.hintIn])
      expect(typeof connector.open(noise)).toBe("string")
    }
  })

  it("open from a view into a larger buffer", () => {
    const { client, connector } = ends()
    const sealed = client.seal(text("inside"))
    const buffer = new Uint8Array(100)
    buffer.set(sealed, 7)
    const copy = Uint8Array.from(buffer)
    expect(connector.open(buffer.subarray(7, 7 + sealed.length))).toEqual(Buffer.from("inside"))
    expect(buffer).toEqual(copy)
  })

  it("have the same bytes in every version", () => {
    const sealed = "0127cc0edfd2d45ef2000000000000000024bfb2e362934a80b86ab290db1bd33f46e03a3b"
    expect(Buffer.from(ends().client.seal(text("ping"))).toString("hex")).toBe(sealed)
  })

  it("need a secret of 32 bytes", () => {
    expect(() => new ProbeSeal({ secret: new Uint8Array(16), role: "client" })).toThrow(RangeError)
  })
})
