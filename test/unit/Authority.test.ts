import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Option, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import type * as Documents from "../../src/protocol/trust/Documents.ts"
import * as GrantCheck from "../../src/protocol/trust/GrantCheck.ts"
import { MAX_PAYLOAD_BYTES, type Signed, signedBytes } from "../../src/protocol/trust/Signed.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Enrolment from "../../src/services/identity/Enrolment.ts"
import * as Keys from "../../src/services/identity/Keys.ts"

const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}
const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-authority-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)
const root = newKey()
const authority = Authority.make(root)
const client = newKey().publicKey
const connector = newKey().publicKey
const wiki: Documents.Resource = {
  name: "wiki",
  network: "office",
  address: "10.0.0.5",
  tcp: [{ from: 80, to: 443 }],
  udp: [],
  allowLoopback: false
}
const fields = {
  clientKey: client,
  clientName: "alice",
  connectorKey: connector,
  connectorName: "office-1",
  resources: [wiki]
}
const NOW = 1_800_000_000
const atNow = TestClock.setTime(NOW * 1000)
const reasonOf = (kind: Documents.Kind, signed: Signed, now = NOW, key = root.publicKey) =>
  Either.match(Authority.verify(kind, signed, key, now), { onLeft: ({ reason }) => reason, onRight: () => "good" })
/** Signs what the authority itself would not say. */
const signRaw = (kind: string, document: unknown): Signed => {
  const payload = Buffer.from(typeof document === "string" ? document : JSON.stringify(document))
  return { payload, signature: Crypto.sign(root.privateKey, signedBytes(kind, payload)) }
}

describe("the authority's documents", () => {
  it.effect("verify under its key, with what was said", () =>
    Effect.gen(function*() {
      yield* atNow
      const membership = { nodeKey: client, name: "alice", role: "client", network: null } as const
      const [grant, member, credential, ticket] = [
        yield* authority.grant(fields),
        yield* authority.membership(membership),
        yield* authority.credential(client),
        yield* Effect.flatMap(Authority.newSession, (session) =>
          authority.ticket({ ...session, clientKey: client, connectorKey: connector }))
      ]
      const verify = <K extends Documents.Kind>(kind: K, signed: Signed) =>
        Either.getOrThrow(Authority.verify(kind, signed, root.publicKey, NOW))
      assert.deepStrictEqual(verify("grant", grant.signed), {
        ...fields,
        id: grant.id,
        issuedAt: NOW,
        expiresAt: NOW + 300
      })
      assert.deepStrictEqual(verify("membership", member), { ...membership, issuedAt: NOW })
      assert.deepStrictEqual(verify("credential", credential), { nodeKey: client, expiresAt: NOW + 600 })
      const { clientTag, connectorTag, expiresAt, session } = verify("ticket", ticket)
      assert.strictEqual(expiresAt, NOW + 3600)
      assert.match(session, /^[0-9a-f]{32}$/)
      assert.notStrictEqual(clientTag, connectorTag)
    }))

  it.effect("are refused with another key, kind or a changed bit", () =>
    Effect.gen(function*() {
      yield* atNow
      const { signed } = yield* authority.grant(fields)
      assert.strictEqual(reasonOf("grant", signed), "good")
      assert.strictEqual(reasonOf("grant", signed, NOW, newKey().publicKey), "forged")
      const { signed: foreign } = yield* Authority.make(newKey()).grant(fields)
      assert.strictEqual(reasonOf("grant", foreign), "forged")
      for (const kind of ["membership", "credential", "ticket"] as const) {
        assert.strictEqual(reasonOf(kind, signed), "forged")
      }
      for (let at = 0; at < signed.payload.length; at++) {
        const payload = Uint8Array.from(signed.payload)
        payload[at] = (payload[at] ?? 0) ^ (1 << (at % 8))
        assert.strictEqual(reasonOf("grant", { ...signed, payload }), "forged")
      }
      for (let at = 0; at < 64; at++) {
        const signature = Uint8Array.from(signed.signature)
        signature[at] = (signature[at] ?? 0) ^ (1 << (at % 8))
        assert.strictEqual(reasonOf("grant", { ...signed, signature }), "forged")
      }
      assert.strictEqual(reasonOf("grant", { ...signed, signature: new Uint8Array(0) }), "forged")
    }))

  it.effect("are good within their time and ten seconds beyond", () =>
    Effect.gen(function*() {
      yield* atNow
      const { signed } = yield* authority.grant(fields)
      assert.strictEqual(reasonOf("grant", signed, NOW - 10), "good")
      assert.strictEqual(reasonOf("grant", signed, NOW - 11), "not_yet_valid")
      assert.strictEqual(reasonOf("grant", signed, NOW + 309), "good")
      assert.strictEqual(reasonOf("grant", signed, NOW + 310), "expired")
      const credential = yield* authority.credential(client)
      assert.strictEqual(reasonOf("credential", credential, NOW + 609), "good")
      assert.strictEqual(reasonOf("credential", credential, NOW + 610), "expired")
      assert.strictEqual(reasonOf("credential", credential, NOW - 11), "too_long_lived")
    }))

  it("are refused with wrong fields or lifetime, even correctly signed", () => {
    const grant = { ...fields, id: "g", issuedAt: NOW, expiresAt: NOW + 300 }
    assert.strictEqual(reasonOf("grant", signRaw("grant", grant)), "good")
    const bad: ReadonlyArray<unknown> = [
      { ...grant, expiresAt: NOW + 301 },
      { ...grant, expiresAt: NOW },
      { ...grant, onlyFrom: "192.0.2.1" }, // a restriction that we would not know how to keep
      { ...grant, clientKey: undefined },
      { ...grant, clientKey: `${client}A` },
      { ...grant, issuedAt: `${NOW}` },
      { ...grant, resources: [{ ...wiki, tcp: [{ from: 90, to: 80 }] }] },
      { ...grant, resources: [{ ...wiki, tcp: [{ from: 0, to: 80 }] }] },
      [],
      null,
      "{",
      "\u0000"
    ]
    for (const document of bad) {
      assert.strictEqual(reasonOf("grant", signRaw("grant", document)), "malformed", JSON.stringify(document))
    }
    const ticket = {
      session: "0".repeat(32),
      clientKey: client,
      connectorKey: connector,
      clientTag: "0123456789ab",
      connectorTag: "ba9876543210",
      expiresAt: NOW + 60
    }
    assert.strictEqual(reasonOf("ticket", signRaw("ticket", ticket)), "good")
    assert.strictEqual(reasonOf("ticket", signRaw("ticket", { ...ticket, expiresAt: NOW + 3611 })), "too_long_lived")
    for (const change of [{ clientTag: ticket.connectorTag }, { clientTag: "000000000000" }, { session: "X" }]) {
      assert.strictEqual(reasonOf("ticket", signRaw("ticket", { ...ticket, ...change })), "malformed")
    }
  })

  it.effect("omit resources that do not fit into a frame", () =>
    Effect.gen(function*() {
      const many = Array.from({ length: 900 }, (_, i) => ({ ...wiki, name: `r-${i}` }))
      const { signed } = yield* authority.grant({ ...fields, resources: many })
      assert.isAtMost(signed.payload.length, MAX_PAYLOAD_BYTES)
      const grant = Either.getOrThrow(Authority.verify("grant", signed, root.publicKey, 0))
      assert.isAbove(grant.resources.length, 100)
      assert.deepStrictEqual(grant.resources, many.slice(0, grant.resources.length))
    }))

  it.scoped("come from a key file that must exist, without secrets", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const layer = Authority.layer({ stateDir })
      assert.strictEqual((yield* Effect.flip(Effect.provide(Authority.Authority, layer))).reason, "missing")
      const key = yield* Keys.loadOrCreate(join(stateDir, Authority.AUTHORITY_KEY_FILE))
      const service = yield* Effect.provide(Authority.Authority, layer)
      assert.strictEqual(service.key, key.publicKey)
      const pem = yield* Effect.promise(() => readFile(join(stateDir, Authority.AUTHORITY_KEY_FILE), "utf8"))
      assert.notInclude(
        inspect(service, { depth: 9, showHidden: true }) + JSON.stringify(service),
        pem.split("\n")[1] ?? ""
      )
    }))
})

describe("a grant", () => {
  const grant: Documents.Grant = { ...fields, id: "g", issuedAt: NOW, expiresAt: NOW + 300 }
  const ask: GrantCheck.Request = {
    host: "wiki",
    protocol: "tcp",
    port: 443,
    clientKey: client,
    connectorKey: connector,
    nowSeconds: NOW + 1
  }
  const verdict = (over: Partial<GrantCheck.Request>) => {
    const answer = GrantCheck.permits(grant, { ...ask, ...over })
    return answer._tag === "Permitted" ? answer.dialHost : answer.reason
  }

  it("permits its resource only, between its nodes, in its time", () => {
    assert.strictEqual(verdict({}), "10.0.0.5")
    assert.strictEqual(verdict({ host: "10.0.0.5" }), "10.0.0.5")
    assert.strictEqual(verdict({ clientKey: connector }), "foreign_client")
    assert.strictEqual(verdict({ connectorKey: client }), "foreign_connector")
    assert.strictEqual(verdict({ nowSeconds: NOW + 310 }), "expired")
    assert.strictEqual(verdict({ nowSeconds: NOW - 11 }), "not_yet_valid")
    assert.strictEqual(verdict({ nowSeconds: NOW - 100_000 }), "not_yet_valid")
    assert.strictEqual(verdict({ host: "mail" }), "unknown_resource")
    assert.strictEqual(verdict({ port: 79 }), "port_not_listed")
    assert.strictEqual(verdict({ protocol: "udp" }), "port_not_listed")
    for (const port of [0, -1, 80.5, Number.NaN, 65_536]) assert.notStrictEqual(verdict({ port }), "10.0.0.5")
    for (const nowSeconds of [Number.NaN, Infinity]) assert.notStrictEqual(verdict({ nowSeconds }), "10.0.0.5")
  })
})

describe("a node's enrolment", () => {
  const relay: Enrolment.Relay = {
    host: "relay.example.com",
    httpsPort: 443,
    tls: { _tag: "Pin", key: newKey().publicKey },
    authorityKey: root.publicKey
  }
  const member = { nodeKey: client, name: "alice", role: "client", network: null } as const

  it.scoped("is kept in a private file and comes back whole", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const service = Enrolment.make(stateDir)
      assert.isTrue(Option.isNone(yield* service.load(client)))
      const signed = yield* authority.membership(member)
      const saved = yield* service.save(client, relay, signed)
      assert.strictEqual(saved.membership.name, "alice")
      assert.deepStrictEqual(yield* Enrolment.make(stateDir).load(client), Option.some(saved))
      const { mode } = yield* Effect.promise(() => stat(join(stateDir, Enrolment.ENROLMENT_FILE)))
      assert.strictEqual(mode & 0o777, 0o600)
      const open: Enrolment.Relay = { ...relay, tls: { _tag: "Ca" } }
      assert.deepStrictEqual((yield* service.save(client, open, signed)).relay, open)
      assert.deepStrictEqual(Option.map(yield* service.load(client), ({ relay }) => relay), Option.some(open))
    }))

  it.scoped("is believed only for its key and the pinned authority", () =>
    Effect.gen(function*() {
      const service = Enrolment.make(yield* folder)
      const signed = yield* authority.membership(member)
      assert.strictEqual((yield* Effect.flip(service.save(connector, relay, signed))).reason, "foreign")
      const forged = yield* Authority.make(newKey()).membership(member)
      assert.strictEqual((yield* Effect.flip(service.save(client, relay, forged))).reason, "foreign")
      assert.isTrue(Option.isNone(yield* service.load(client)))
      yield* service.save(client, relay, signed)
      assert.strictEqual((yield* Effect.flip(service.load(connector))).reason, "foreign")
    }))

  it.scoped("is reported as damaged with a remedy for any cut", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const path = join(stateDir, Enrolment.ENROLMENT_FILE)
      const service = Enrolment.make(stateDir)
      yield* service.save(client, relay, yield* authority.membership(member))
      const text = yield* Effect.promise(() => readFile(path, "utf8"))
      for (const broken of ["", "{}", "null", "[]", text.slice(0, 200), text.replace("\"Pin\"", "\"Pan\""), "\u0000"]) {
        yield* Effect.promise(() => writeFile(path, broken))
        const error = yield* Effect.flip(service.load(client))
        assert.strictEqual(error.reason, "damaged", broken)
        assert.include(error.message, "enrol with a new token")
      }
    }))
})
