import { assert, describe, it } from "@effect/vitest"
import { Buffer } from "node:buffer"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import * as ZeroTiebreaker from "../../src/protocol/nat/ZeroTiebreaker.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"

const PASSWORD = "the password of the agent"
const keys: ZeroTiebreaker.Keys = {
  passwordOf: (ufrag) => ufrag === "RBgF" ? PASSWORD : undefined,
  hmacSha1: Crypto.hmacSha1
}

const attribute = (type: number, value: Uint8Array) => {
  const bytes = Buffer.alloc(4 + ((value.length + 3) & ~3))
  bytes.writeUInt16BE(type, 0)
  bytes.writeUInt16BE(value.length, 2)
  bytes.set(value, 4)
  return bytes
}

/** A check as Chromium sends it. */
const check = (
  { password = PASSWORD, role = 0x802a, tiebreaker = 0n, username = "RBgF:9810" }: {
    readonly password?: string
    readonly role?: number
    readonly tiebreaker?: bigint
    readonly username?: string
  } = {}
) => {
  const head = Buffer.alloc(Stun.HEADER_BYTES, 7)
  head.writeUInt16BE(1, 0)
  head.writeUInt32BE(Stun.MAGIC_COOKIE, 4)
  const value = Buffer.alloc(8)
  value.writeBigUInt64BE(tiebreaker)
  const body = Buffer.concat([
    head,
    attribute(6, Buffer.from(username)),
    attribute(role, value),
    attribute(0x25, Buffer.alloc(0))
  ])
  body.writeUInt16BE(body.length + 24 - Stun.HEADER_BYTES, 2)
  const signed = Buffer.concat([body, attribute(8, Crypto.hmacSha1(Buffer.from(password), body))])
  const all = Buffer.concat([signed, attribute(0x8028, Buffer.alloc(4))])
  all.writeUInt16BE(all.length - Stun.HEADER_BYTES, 2)
  const view = new DataView(all.buffer, all.byteOffset, all.length)
  view.setUint32(all.length - 4, Stun.fingerprint(view, signed.length))
  return all
}

describe("ZeroTiebreaker", () => {
  it("replaces a tiebreaker of 0 and signs the check again", () => {
    for (const role of [0x802a, 0x8029]) {
      const message = check({ role })
      assert.isTrue(ZeroTiebreaker.replace(message, keys))
      assert.deepStrictEqual(message, check({ role, tiebreaker: 1n }))
      assert.isFalse(ZeroTiebreaker.replace(message, keys), "once")
    }
  })

  it("changes only a zero tiebreaker that the browser signed", () => {
    const response = check()
    response.writeUInt16BE(0x0101, 0)
    const cut = check().subarray(0, 60)
    const messages = [
      check({ password: "another" }),
      check({ username: "other:9810" }),
      check({ tiebreaker: 5n }),
      response,
      cut,
      Buffer.alloc(0),
      Buffer.alloc(20)
    ]
    for (const message of messages) {
      const before = Buffer.from(message)
      assert.isFalse(ZeroTiebreaker.replace(message, keys))
      assert.deepStrictEqual(message, before)
    }
  })

  it("takes any bytes without throwing", () => {
    const sample = check()
    for (let at = 0; at < sample.length; at++) {
      const message = Buffer.from(sample)
      message[at]! ^= 0xff
      ZeroTiebreaker.replace(message, keys)
      ZeroTiebreaker.replace(sample.subarray(0, at), keys)
    }
    assert.isTrue(ZeroTiebreaker.replace(sample, keys))
  })
})
