import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Redacted } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { toBytes } from "../../src/protocol/trust/NodeKey.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as StateFile from "../../src/services/host/StateFile.ts"
import * as Keys from "../../src/services/identity/Keys.ts"

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-keys-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)
const modeOf = (path: string) => Effect.map(Effect.promise(() => stat(path)), ({ mode }) => mode & 0o777)

describe("key files", () => {
  it.scoped("are made once, in a private folder, and stay", () =>
    Effect.gen(function*() {
      const dir = join(yield* folder, "state", "deep")
      const path = join(dir, "node.key")
      const first = yield* Keys.loadOrCreate(path)
      const second = yield* Keys.loadOrCreate(path)
      assert.strictEqual(first.publicKey, second.publicKey)
      assert.strictEqual(yield* modeOf(path), 0o600)
      assert.strictEqual(yield* modeOf(dir), 0o700)
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(dir)), ["node.key"])
    }))

  it.scoped("give the same key to everyone who creates at once", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "node.key")
      const keys = yield* Effect.all(Array.from({ length: 24 }, () => Keys.loadOrCreate(path)), { concurrency: 24 })
      assert.strictEqual(new Set(keys.map(({ publicKey }) => publicKey)).size, 1)
    }))

  it.scoped("lose the group permissions that Kubernetes gives volumes", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "node.key")
      const { publicKey } = yield* Keys.loadOrCreate(path)
      for (const mode of [0o640, 0o660, 0o620]) {
        yield* Effect.promise(() => chmod(path, mode))
        assert.strictEqual((yield* Keys.load(path)).publicKey, publicKey)
        assert.strictEqual(yield* modeOf(path), 0o600)
      }
    }))

  it.scoped("are refused if others can read or write them", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "node.key")
      yield* Keys.loadOrCreate(path)
      for (const mode of [0o604, 0o602, 0o644, 0o666]) {
        yield* Effect.promise(() => chmod(path, mode))
        const error = yield* Effect.flip(Keys.loadOrCreate(path))
        assert.strictEqual(error.reason, "exposed")
        assert.include(error.message, `chmod 600 ${path}`)
      }
      yield* Effect.promise(() => chmod(path, 0o600))
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(Keys.load(path))))
    }))

  it.scoped("are refused and left alone if they are garbage", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "node.key")
      const ec = generateKeyPairSync("ec", { namedCurve: "P-256" })
      const ed = generateKeyPairSync("ed25519")
      const texts = [
        "",
        "garbage",
        ec.privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
        ed.publicKey.export({ format: "pem", type: "spki" }).toString(),
        ed.privateKey.export({ format: "pem", type: "pkcs8" }).toString().slice(0, 60)
      ]
      for (const text of texts) {
        yield* Effect.promise(() => writeFile(path, text, { mode: 0o600 }))
        const error = yield* Effect.flip(Keys.loadOrCreate(path))
        assert.strictEqual(error.reason, "damaged")
        assert.strictEqual(yield* Effect.promise(() => readFile(path, "utf8")), text)
        if (text.length > 40) assert.notInclude(error.message, text.slice(30, 55))
      }
    }))

  it.scoped("are not made again by load", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "authority.key")
      assert.strictEqual((yield* Effect.flip(Keys.load(path))).reason, "missing")
      assert.isFalse(yield* StateFile.exists(path))
    }))
})

describe("a node's identity", () => {
  it.scoped("signs with its named key, and prints no secret", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const identity = yield* Effect.provide(Keys.NodeIdentity, Keys.layerNodeIdentity({ stateDir }))
      const message = Crypto.randomBytes(40)
      assert.isTrue(Crypto.verify(toBytes(identity.key), message, identity.sign(message)))
      assert.isFalse(Crypto.verify(toBytes(identity.key), Crypto.randomBytes(40), identity.sign(message)))
      const secret = Redacted.value(identity.privateKey).split("\n")[1] ?? ""
      assert.isAbove(secret.length, 40)
      for (
        const shown of [JSON.stringify(identity), inspect(identity, { depth: 9, showHidden: true })]
      ) {
        assert.notInclude(shown, secret)
        assert.notInclude(shown, "PRIVATE KEY")
      }
      const key = yield* Keys.load(join(stateDir, Keys.NODE_KEY_FILE))
      assert.notInclude(inspect(key, { depth: 9, showHidden: true }) + JSON.stringify(key), secret)
    }))
})

describe("state files", () => {
  it.scoped("are replaced whole and private, and leave nothing behind", () =>
    Effect.gen(function*() {
      const dir = yield* folder
      const path = join(dir, "enrolment.json")
      yield* Effect.all(Array.from({ length: 20 }, (_, i) => StateFile.replace(path, `${i}`.repeat(5000))), {
        concurrency: 20
      })
      const text = yield* Effect.promise(() => readFile(path, "utf8"))
      assert.isTrue(/^(\d+?)\1{4999}$/.test(text))
      assert.strictEqual(yield* modeOf(path), 0o600)
      assert.deepStrictEqual(yield* Effect.promise(() => readdir(dir)), ["enrolment.json"])
    }))

  it.scoped("name the path and a remedy if not writable", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a-file")
      yield* StateFile.replace(file, "x")
      const error = yield* Effect.flip(Keys.loadOrCreate(join(file, "node.key")))
      assert.strictEqual(error.reason, "unusable")
      assert.include(error.message, "give stateDir another folder")
    }))
})
