import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Duration, Effect, Either, Fiber, Option, Redacted, Stream, TestClock, TestServices } from "effect"
import { generateKeyPairSync, X509Certificate } from "node:crypto"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { type AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as tls from "node:tls"
import { inspect } from "node:util"
import { endorsedBytes } from "../../src/protocol/relay/LinkHandshake.ts"
import { type NodeKey, toBytes } from "../../src/protocol/trust/NodeKey.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as Pki from "../../src/services/identity/Pki.ts"
import * as RelayTls from "../../src/services/identity/RelayTls.ts"

const DAY = 86_400_000
const NOW = Date.parse("2026-03-01T12:00:00.500Z")
const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}
const derOf = (pem: string) => new X509Certificate(pem).raw
const reasonOf = (der: Uint8Array, pin: NodeKey) =>
  Either.match(Pki.checkLeaf(der, pin), { onLeft: ({ reason }) => reason, onRight: () => "good" })
/** DER of the extension keyUsage (RFC 5280, section 4.2.1.3), critical, with its first bit alone. */
const CRITICAL_DIGITAL_SIGNATURE = Buffer.from("300e0603551d0f0101ff040403020780", "hex")
const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-pki-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

describe("the relay's leaf", () => {
  const relay = newKey()
  let leaf: Pki.Leaf
  let der: Buffer
  beforeAll(async () => {
    leaf = await Effect.runPromise(
      Pki.issueLeaf({ issuer: relay.privateKey, host: "relay.example.com", nowMs: NOW })
    )
    der = derOf(leaf.cert)
  })

  it("is good for the pinned key whatever its dates", async () => {
    assert.strictEqual(reasonOf(der, relay.publicKey), "good")
    assert.strictEqual(reasonOf(der, newKey().publicKey), "foreign")
    for (const nowMs of [Date.now() - 40 * DAY, Date.now() + 40 * DAY]) {
      const other = await Effect.runPromise(Pki.issueLeaf({ issuer: relay.privateKey, host: "x", nowMs }))
      assert.strictEqual(reasonOf(derOf(other.cert), relay.publicKey), "good")
    }
  })

  it("is P-256, for its host only, and short", () => {
    const parsed = new X509Certificate(der)
    assert.strictEqual(parsed.publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1")
    assert.isDefined(parsed.checkHost("relay.example.com"))
    assert.isUndefined(parsed.checkHost("other.example.com"))
    assert.isFalse(parsed.ca)
    assert.isAtMost(Date.parse(parsed.validTo) - Date.parse(parsed.validFrom), 14 * DAY)
    assert.strictEqual(
      Buffer.from(leaf.sha256).toString("hex"),
      parsed.fingerprint256.replaceAll(":", "").toLowerCase()
    )
    assert.strictEqual(Date.parse(parsed.validTo), leaf.notAfter)
  })

  it.effect("carries IP addresses of both families", () =>
    Effect.gen(function*() {
      for (const host of ["203.0.113.7", "2001:db8::7", "::1"]) {
        const parsed = new X509Certificate((yield* issue(host)).cert)
        assert.isDefined(parsed.checkIP(host))
        assert.isUndefined(parsed.checkIP("203.0.113.8"))
        assert.match(parsed.subjectAltName ?? "", /^IP Address:[^,]+$/)
      }
    }))

  it.effect("has a random positive serial number of 16 bytes", () =>
    Effect.gen(function*() {
      const leaves = yield* Effect.all(Array.from({ length: 20 }, () => issue("x")), { concurrency: 20 })
      const serials = leaves.map(({ cert }) => new X509Certificate(cert).serialNumber)
      for (const serial of serials) assert.match(serial, /^[4-7][0-9A-F]{31}$/)
      assert.strictEqual(new Set(serials).size, 20)
    }))

  it("is for TLS servers and signatures", () => {
    const parsed = new X509Certificate(der)
    assert.deepStrictEqual(parsed.keyUsage, ["1.3.6.1.5.5.7.3.1"]) // Node shows the extended ones under this name
    assert.strictEqual(parsed.subjectAltName, "DNS:relay.example.com")
    assert.strictEqual(parsed.issuer, "CN=sallyport relay")
    assert.strictEqual(parsed.subject, "CN=sallyport relay leaf")
    assert.isTrue(der.includes(CRITICAL_DIGITAL_SIGNATURE))
  })

  it.effect("is refused if forged by another key", () =>
    Effect.gen(function*() {
      const forged = yield* issue("relay.example.com", newKey())
      assert.strictEqual(reasonOf(derOf(forged.cert), relay.publicKey), "foreign")
    }))

  it("is refused with any bit changed, cut or added", () => {
    for (let at = 0; at < der.length; at++) {
      const changed = Uint8Array.from(der)
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      assert.notStrictEqual(reasonOf(changed, relay.publicKey), "good", `byte ${at}`)
    }
    assert.strictEqual(reasonOf(der.subarray(0, -1), relay.publicKey), "malformed")
    assert.strictEqual(reasonOf(Buffer.concat([der, Buffer.of(0)]), relay.publicKey), "malformed")
    assert.strictEqual(reasonOf(Buffer.from(leaf.cert), relay.publicKey), "malformed")
    assert.strictEqual(reasonOf(new Uint8Array(0), relay.publicKey), "malformed")
  })

  const issue = (host: string, issuer = relay) => Pki.issueLeaf({ issuer: issuer.privateKey, host, nowMs: NOW })
  const handshake = (fresh: Pki.Leaf) =>
    Effect.async<void, Error>((resume) => {
      const server = tls.createServer(
        { cert: fresh.cert, key: Redacted.value(fresh.key) },
        (socket) => socket.end("hi")
      )
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        const socket = tls.connect({ port, host: "127.0.0.1", minVersion: "TLSv1.3", rejectUnauthorized: false })
        socket.once("error", (error) => resume(Effect.fail(error)))
        socket.once("secureConnect", () => {
          const seen = socket.getPeerCertificate().raw
          assert.deepStrictEqual(Uint8Array.from(Crypto.sha256(seen)), fresh.sha256)
          assert.strictEqual(reasonOf(seen, relay.publicKey), "good")
          socket.destroy()
          server.close()
          resume(Effect.void)
        })
      })
    })
  it.live("serves TLS 1.3 with a certificate that clients can check", () =>
    Effect.flatMap(
      Pki.issueLeaf({ issuer: relay.privateKey, host: "localhost", nowMs: Date.now() }),
      handshake
    ))
})

describe("a node's certificate", () => {
  const node = newKey()
  const certificate = Pki.selfSigned(node.privateKey)

  it.effect("shows the node's key, signed by it, always the same", () =>
    Effect.gen(function*() {
      const pem = yield* certificate
      const parsed = new X509Certificate(pem)
      assert.deepStrictEqual(Pki.publicKeyOfCert(parsed.raw), Either.right(node.publicKey))
      assert.isTrue(parsed.verify(parsed.publicKey))
      assert.strictEqual(yield* certificate, pem)
      assert.notStrictEqual(yield* Pki.selfSigned(newKey().privateKey), pem)
      assert.match(parsed.serialNumber, /^[4-7][0-9A-F]{31}$/)
      assert.strictEqual(Date.parse(parsed.validFrom), Date.parse("2020-01-01T00:00:00Z"))
      assert.strictEqual(Date.parse(parsed.validTo), Date.parse("9999-12-31T23:59:59Z"))
      assert.isTrue(parsed.raw.includes(CRITICAL_DIGITAL_SIGNATURE))
    }))

  it.effect("gives a key only if it is Ed25519", () =>
    Effect.gen(function*() {
      const pem = yield* certificate
      const leaf = yield* Pki.issueLeaf({ issuer: node.privateKey, host: "x", nowMs: NOW })
      assert.isTrue(Either.isLeft(Pki.publicKeyOfCert(derOf(leaf.cert))))
      assert.isTrue(Either.isLeft(Pki.publicKeyOfCert(Buffer.from(pem))))
      assert.isTrue(Either.isLeft(Pki.publicKeyOfCert(Buffer.concat([derOf(pem), Buffer.of(1)]))))
      for (let at = 0; at < 200; at++) Pki.publicKeyOfCert(Crypto.randomBytes(at)) // does not throw
    }))
})

describe("the relay's TLS while it runs", () => {
  it.scoped("pins its own key and renews long before the end", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(NOW)
      const stateDir = yield* folder
      const { publicKey } = yield* Keys.loadOrCreate(join(stateDir, RelayTls.TLS_KEY_FILE))
      yield* Effect.gen(function*() {
        const service = yield* RelayTls.RelayTls
        assert.deepStrictEqual(service.trust, { _tag: "Pin", key: publicKey })
        const first = yield* service.current
        yield* TestClock.adjust("5 days")
        yield* TestServices.provideLive(Effect.sleep("300 millis")) // as long as it takes to issue one: it must not
        assert.strictEqual((yield* service.current).cert, first.cert)
        const changed = yield* Effect.fork(
          Stream.runHead(Stream.filter(service.changes, ({ cert }) => cert !== first.cert))
        )
        yield* TestClock.adjust("2 days")
        const second = Option.getOrThrow(yield* Fiber.join(changed))
        assert.strictEqual((yield* service.current).cert, second.cert)
        assert.isAbove(second.notAfter, NOW + Duration.toMillis("17 days"))
        const secret = Redacted.value(second.key).split("\n")[1] ?? ""
        assert.notInclude(inspect(service, { depth: 9 }) + inspect(second) + JSON.stringify(second), secret)
      }).pipe(Effect.provide(RelayTls.layer({ stateDir, host: "relay.example.com", tls: null })))
    }))

  it.scoped("needs the key that nodes pinned, and makes none", () =>
    Effect.gen(function*() {
      const layer = RelayTls.layer({ stateDir: yield* folder, host: "x", tls: null })
      const error = yield* Effect.flip(Effect.provide(RelayTls.RelayTls, layer))
      assert.strictEqual(error._tag, "KeyFileError")
    }))

  it.scoped("takes an operator's new files once they fit together", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      const files = { cert: join(dir, "cert.pem"), key: join(dir, "key.pem") }
      const issue = (nowMs: number) => Pki.issueLeaf({ issuer: newKey().privateKey, host: "relay.example.com", nowMs })
      const [one, two] = [yield* issue(NOW), yield* issue(NOW + DAY)]
      const write = (path: string, text: string) => Effect.promise(() => writeFile(path, text))
      const tick = Effect.zipRight(
        TestClock.adjust("1 minute"),
        Effect.promise(() => new Promise((r) => setTimeout(r, 60)))
      )
      const own = yield* Keys.loadOrCreate(join(dir, RelayTls.TLS_KEY_FILE))
      yield* write(files.cert, one.cert)
      yield* write(files.key, Redacted.value(one.key))
      yield* Effect.gen(function*() {
        const service = yield* RelayTls.RelayTls
        assert.deepStrictEqual(service.trust, { _tag: "Ca" })
        assert.deepStrictEqual((yield* service.current).sha256, one.sha256)
        const endorsement = service.endorse?.(one.sha256) ?? new Uint8Array(0)
        assert.isTrue(Crypto.verify(toBytes(own.publicKey), endorsedBytes(one.sha256), endorsement))
        assert.isFalse(Crypto.verify(toBytes(own.publicKey), endorsedBytes(two.sha256), endorsement))
        yield* write(files.cert, two.cert)
        yield* tick
        assert.deepStrictEqual((yield* service.current).sha256, one.sha256)
        yield* write(files.key, Redacted.value(two.key))
        yield* tick
        yield* tick
        assert.deepStrictEqual((yield* service.current).sha256, two.sha256)
      }).pipe(Effect.provide(RelayTls.layer({ stateDir: dir, host: "x", tls: files })))
      const wrong = RelayTls.layer({ stateDir: dir, host: "x", tls: { cert: files.key, key: files.cert } })
      const error = yield* Effect.flip(Effect.provide(RelayTls.RelayTls, wrong))
      assert.notInclude(error.message, Redacted.value(two.key).split("\n")[1] ?? "")
    }))
})

describe("signatures", () => {
  it("verify never throws, whatever the lengths", () => {
    const key = newKey()
    const good = Crypto.sign(key.privateKey, Buffer.from("x"))
    for (const length of [0, 1, 31, 33, 64]) {
      assert.isFalse(Crypto.verify(new Uint8Array(length), Buffer.from("x"), good))
      assert.isFalse(Crypto.verify(new Uint8Array(32), Buffer.from("x"), new Uint8Array(length)))
    }
  })

  it("prove nothing under a key of small order", () => {
    const points = [
      "00".repeat(32),
      `01${"00".repeat(31)}`,
      `${"00".repeat(31)}80`,
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
      `ec${"ff".repeat(30)}7f`,
      `ee${"ff".repeat(31)}`
    ]
    for (const key of points) {
      for (const point of points) {
        const signature = Buffer.concat([Buffer.from(point, "hex"), Buffer.alloc(32)])
        assert.isFalse(Crypto.verify(Buffer.from(key, "hex"), Buffer.from("any message"), signature), `${key} ${point}`)
      }
    }
  })

  it("derive as RFC 5869 says (test case 1)", () => {
    const okm = Crypto.hkdfSha256(
      Buffer.alloc(22, 0x0b),
      Buffer.from("000102030405060708090a0b0c", "hex"),
      Buffer.from("f0f1f2f3f4f5f6f7f8f9", "hex"),
      42
    )
    assert.strictEqual(
      Buffer.from(okm).toString("hex"),
      "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
  })
})
