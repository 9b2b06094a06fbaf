import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import * as IpBytes from "../../src/protocol/bytes/IpBytes.ts"
import * as Turn from "../../src/protocol/relay/Turn.ts"
import * as TurnPeers from "../../src/protocol/relay/TurnPeers.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import { runs } from "../support/Runs.ts"

const RUNS = runs(20_000)

const txId = fc.uint8Array({ minLength: 12, maxLength: 12 })
const addr = fc.record({
  host: fc.tuple(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.boolean()).map(([ip, v4]) =>
    IpBytes.format(ip, 0, v4 ? 4 : 16)
  ),
  port: fc.integer({ min: 1, max: 65535 })
})
const short = fc.string({ minLength: 1, maxLength: 60, unit: "grapheme-ascii" })
const fields = fc.record({
  username: short,
  realm: short,
  nonce: short,
  lifetime: fc.nat(),
  channel: fc.integer({ min: 0, max: 0xffff }),
  transport: fc.integer({ min: 0, max: 255 }),
  family: fc.constantFrom<4 | 6>(4, 6),
  evenPort: fc.record({ reserve: fc.boolean() }),
  peers: fc.array(addr, { minLength: 1, maxLength: 3 }),
  data: fc.uint8Array({ maxLength: 200 }),
  relayed: addr,
  mapped: addr,
  error: fc.integer({ min: 300, max: 699 })
}, { requiredKeys: [] })
const method = fc.constantFrom(...Object.values(Turn.Method))
const cls = fc.constantFrom(...Object.values(Turn.Class))
const key = Uint8Array.from([1, 2, 3])
const signers: ReadonlyArray<Turn.Signer> = [
  { macBytes: 20, mac: (input) => Crypto.hmacSha1(key, input) },
  { macBytes: 32, mac: (input) => Crypto.hmacSha256(key, input) }
]
const message = fc.tuple(method, cls, txId, fields, fc.constantFrom(undefined, ...signers), fc.boolean()).map(
  ([method, cls, txId, fields, signer, fingerprint]) => ({
    fields,
    signer,
    bytes: Turn.encode(method, cls, txId, fields, { signer, fingerprint }),
    head: { method, class: cls, txId, fingerprint }
  })
)

describe("Turn", () => {
  it("decodes what it encodes, and finds either kind of MAC", () =>
    fc.assert(fc.property(message, ({ bytes, fields, head, signer }) => {
      const decoded = Either.getOrThrow(Turn.decode(bytes))
      const { error, ...rest } = fields
      assert.deepInclude(decoded, { ...head, ...rest })
      assert.strictEqual(decoded.error?.code, error)
      assert.strictEqual(Turn.streamLength(bytes), bytes.length)
      const { sha1At, sha256At } = decoded.macs
      const at = signer?.macBytes === 20 ? sha1At : sha256At
      assert.strictEqual(at !== 0, signer !== undefined)
      if (signer === undefined) return
      const mac = signer.mac(Turn.macInput(bytes, at, signer.macBytes))
      assert.deepStrictEqual(bytes.slice(at + 4, at + 4 + mac.length), mac)
    })))

  it(`never throws, whatever was done to the bytes (${RUNS} inputs)`, () => {
    const change = fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) })
    const rejected = new Set<string>()
    fc.assert(
      fc.property(message, fc.array(change, { maxLength: 6 }), fc.nat({ max: 8 }), ({ bytes }, changes, cut) => {
        const mutated = bytes.slice(0, bytes.length - (cut < 5 ? 0 : cut))
        for (const { at, to } of changes) mutated[at % mutated.length] = to
        const decoded = Turn.decode(mutated)
        if (Either.isLeft(decoded)) rejected.add(decoded.left)
        Turn.decodeChannelData(mutated)
        assert.isAtLeast(Turn.streamLength(mutated), -1)
      }),
      { numRuns: RUNS }
    )
    assert.includeMembers([...rejected], ["NotStun", "BadType", "BadLength", "BadFingerprint", "BadAttribute"])
  })

  it("ignores what follows a MAC", () => {
    const signed = Turn.encode(Turn.Method.refresh, Turn.Class.request, new Uint8Array(12), {}, { signer: signers[0] })
    const forged = Uint8Array.from([...signed, 0, 0x0d, 0, 4, 0, 0, 0, 0]) // LIFETIME 0
    forged[3]! += 8
    assert.strictEqual(Either.getOrThrow(Turn.decode(forged)).lifetime, null)
  })

  it("cuts ChannelData out of datagrams and streams", () =>
    fc.assert(fc.property(
      fc.integer({ min: Turn.FIRST_CHANNEL, max: Turn.LAST_CHANNEL }),
      fc.uint8Array({ maxLength: 300 }),
      fc.boolean(),
      (channel, data, padded) => {
        const bytes = Turn.encodeChannelData(channel, data, padded)
        assert.deepStrictEqual(Turn.decodeChannelData(bytes), { channel, data })
        if (padded) assert.strictEqual(Turn.streamLength(bytes), bytes.length)
        assert.strictEqual(Turn.decodeChannelData(bytes.subarray(0, 3 + data.length)), null)
      }
    )))
})

describe("TurnPeers", () => {
  const may = TurnPeers.make({
    allowed: ["10.1.0.0/16", "fd00:1::/32", "198.51.100.9"],
    own: ["10.1.0.5", "1.1.1.1", "198.51.100.9"]
  })

  it("permits public addresses, and of others what is listed", () => {
    for (const host of ["8.8.8.8", "172.32.0.1", "2606:4700::1", "10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5"]) {
      assert.isTrue(may(host), host)
    }
  })

  it("refuses what is private, local, special or no address", () => {
    const hosts = ["0.0.0.0", "10.2.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255"]
      .concat(
        "192.168.1.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1"
      )
      .concat(
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:192.168.1.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001::1",
        "",
        "x"
      )
    for (const host of hosts) assert.isFalse(may(host), host)
  })

  it("refuses an own address unless it is listed by itself", () => {
    assert.isFalse(may("10.1.0.5"))
    assert.isFalse(may("::ffff:1.1.1.1"))
    assert.isTrue(may("198.51.100.9"))
  })

  it("agrees with a range's own arithmetic", () =>
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 32 }), fc.nat(0xffff_ffff), fc.nat(0xffff_ffff), (bits, base, ip) => {
        const text = (n: number) => [24, 16, 8, 0].map((shift) => (n >>> shift) & 255).join(".")
        const holds = bits === 0 || (base >>> (32 - bits)) === (ip >>> (32 - bits))
        const one = TurnPeers.make({ allowed: [`${text(base)}/${bits}`], own: [] })
        assert.strictEqual(one(text(ip)), holds || TurnPeers.make({ allowed: [], own: [] })(text(ip)))
      })
    ))
})
