import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import * as IpBytes from "../../src/protocol/bytes/IpBytes.ts"
import { LEG_KINDS } from "../../src/protocol/path/PathKind.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import { runs } from "../support/Runs.ts"

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const nonce = bytes(RelayWire.NONCE_BYTES)
const signed = fc.record({ payload: fc.uint8Array({ maxLength: RelayWire.MAX_PAYLOAD_BYTES }), signature: bytes(64) })
const tag = fc.integer({ min: 1, max: 2 ** 48 - 1 })
const peerLeg = fc.constantFrom(null, ...LEG_KINDS)
const mapped = fc.option(fc.record({
  host: fc.tuple(bytes(16), fc.boolean()).map(([ip, v4]) => IpBytes.format(ip, 0, v4 ? 4 : 16)),
  port: fc.integer({ min: 1, max: 65535 })
}))
const is = <const A extends string>(tag: A) => fc.constant(tag)
const message: fc.Arbitrary<RelayWire.Message> = fc.oneof(
  fc.record({ _tag: is("BindRequest"), nonce }),
  fc.record({ _tag: is("Cookie"), nonce, cookie: bytes(RelayWire.COOKIE_BYTES) }),
  fc.record({
    _tag: is("Bind"),
    nonce,
    cookie: bytes(RelayWire.COOKIE_BYTES),
    signature: bytes(64),
    credential: signed
  }),
  fc.record({ _tag: is("Bound"), nonce, mark: nonce, lifetimeSeconds: fc.nat(65535), mapped }),
  fc.record({ _tag: is("Open"), nonce, ticket: signed }),
  fc.record({ _tag: is("Opened"), nonce, tag, peerLeg }),
  fc.record({ _tag: is("Rebind"), echo: nonce }),
  fc.record({ _tag: is("RateLimited"), mark: nonce, retryAfterMs: fc.nat(2 ** 32 - 1) }),
  fc.record({
    _tag: is("Refused"),
    nonce,
    asked: fc.constantFrom(...RelayWire.ASKED),
    code: fc.constantFrom(...RelayWire.REFUSALS)
  }),
  fc.record({ _tag: fc.constantFrom("Ping" as const, "Pong" as const), echo: nonce }),
  fc.record({ _tag: is("Leg"), mark: nonce, tag, peerLeg }),
  fc.record({ _tag: is("Close"), tag })
)

describe("RelayWire", () => {
  it("decodes what it encodes", () =>
    fc.assert(
      fc.property(message, (message) => {
        const frame = RelayWire.encode(message)
        assert.strictEqual(Frame.lengthAt(frame, 0), frame.length)
        assert.strictEqual(Frame.tagAt(frame, 0), Frame.CONTROL_TAG)
        assert.deepStrictEqual(RelayWire.decode(frame), Either.right(message))
      }),
      { numRuns: runs(1000) }
    ))

  it("rejects every message that is cut short", () =>
    fc.assert(
      fc.property(message, fc.nat(), (message, keep) => {
        const frame = RelayWire.encode(message)
        const short = frame.slice(0, 9 + (keep % (frame.length - 9)))
        Frame.writeRelayedHead(short, 0, short.length, 0)
        assert.isTrue(Either.isLeft(RelayWire.decode(short)))
      }),
      { numRuns: runs(1000) }
    ))

  it("never throws, whatever the bytes", () =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.integer({ min: 0, max: 20 }), (body, type) => {
        RelayWire.decode(body)
        const frame = new Uint8Array(9 + body.length)
        frame.set(body, 9)
        Frame.writeRelayedHead(frame, 0, frame.length, 0)
        frame[8] = type
        const decoded = RelayWire.decode(frame)
        if (Either.isLeft(decoded)) assert.isString(decoded.left)
        else assert.deepStrictEqual(RelayWire.decode(RelayWire.encode(decoded.right)), decoded)
      }),
      { numRuns: runs(3000) }
    ))

  it("keeps nothing of the buffer that it read", () => {
    const frame = RelayWire.encode({ _tag: "Ping", echo: new Uint8Array(8).fill(7) })
    const decoded = Either.getOrThrow(RelayWire.decode(frame))
    frame.fill(0)
    assert.deepStrictEqual(decoded, { _tag: "Ping", echo: new Uint8Array(8).fill(7) })
  })

  it("rejects session frames, and requests shorter than their answer", () => {
    const frame = RelayWire.encode({ _tag: "BindRequest", nonce: new Uint8Array(8) })
    const short = frame.slice(0, 63)
    Frame.writeRelayedHead(short, 0, 63, 0)
    assert.deepStrictEqual(RelayWire.decode(short), Either.left("Truncated"))
    Frame.writeRelayedHead(frame, 0, frame.length, 1)
    assert.deepStrictEqual(RelayWire.decode(frame), Either.left("NotControl"))
  })

  it("never answers an unproved request with more bytes", () => {
    const size = (message: RelayWire.Message) => RelayWire.encode(message).length
    const nonce = new Uint8Array(8)
    const empty = { payload: new Uint8Array(0), signature: new Uint8Array(64) }
    const refused = size({ _tag: "Refused", nonce, asked: "Bind", code: "full" })
    const bind = size({
      _tag: "Bind",
      nonce,
      cookie: new Uint8Array(20),
      signature: new Uint8Array(64),
      credential: empty
    })
    assert.isAtMost(size({ _tag: "Cookie", nonce, cookie: new Uint8Array(20) }), RelayWire.BIND_REQUEST_BYTES)
    assert.isAtMost(refused, size({ _tag: "Open", nonce, ticket: empty }))
    assert.isAtMost(refused, bind)
    assert.isAtMost(
      size({ _tag: "Bound", nonce, mark: nonce, lifetimeSeconds: 1, mapped: { host: "::1", port: 1 } }),
      bind
    )
    assert.isAtMost(size({ _tag: "Rebind", echo: nonce }), size({ _tag: "Ping", echo: nonce }))
  })
})
