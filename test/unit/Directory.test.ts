import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Layer, Redacted } from "effect"
import { build } from "esbuild"
import { execFile, spawn } from "node:child_process"
import { chmod, copyFile, readdir, readFile, readlink, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { inspect, promisify } from "node:util"
import * as Directory from "../../src/services/directory/Directory.ts"
import * as DirectoryAudit from "../../src/services/directory/DirectoryAudit.ts"
import * as DirectoryDb from "../../src/services/directory/DirectoryDb.ts"
import { DirectoryStore } from "../../src/services/directory/DirectoryStore.ts"
import * as LibsqlStore from "../../src/services/directory/LibsqlStore.ts"
import * as RelayKeys from "../../src/services/directory/RelayKeys.ts"
import { contract, enrol, folder, newKey, resource, tagOf } from "../suite/support/DirectoryContract.ts"

contract("libSQL", LibsqlStore.layer)

/** A store whose audit log takes no more dials. */
const fullStore = (options: { readonly stateDir: string }) =>
  Layer.effect(
    DirectoryStore,
    Effect.map(DirectoryStore, (store) =>
      DirectoryStore.of({
        ...store,
        recordDial: () => Effect.fail(new Directory.DirectoryError({ reason: "full", message: "the disk is full" }))
      }))
  ).pipe(Layer.provide(LibsqlStore.layer(options)))

describe("a directory whose disk is full", () => {
  it.scoped("decides about dials all the same", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      yield* Effect.gen(function*() {
        const directory = yield* Directory.Directory
        const { nodeKey } = yield* enrol("alice")
        yield* directory.replacePolicy({
          resources: [resource("wiki")],
          access: [{ clients: ["alice"], resources: ["wiki"] }]
        })
        const dial = (port: number) =>
          tagOf(directory.authorize({ clientKey: nodeKey, host: "wiki", protocol: "tcp", port }))
        assert.deepStrictEqual([yield* dial(80), yield* dial(81)], ["ok", "PortNotListed"])
        assert.notInclude((yield* directory.auditLog(9)).map(({ kind }) => kind), "dial_allowed")
      }).pipe(Effect.provide(Layer.provide(Directory.fromStore, fullStore({ stateDir }))))
    }))
})

describe("a directory's files", () => {
  it.scoped("shows no secret in database, errors, answers or log", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      yield* Effect.gen(function*() {
        const directory = yield* Directory.Directory
        const { nodeKey, token } = yield* enrol("alice")
        const secret = Redacted.value(token.secret)
        const failure = yield* Effect.exit(
          directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey: newKey(), onlyAs: null })
        )
        const audit = yield* directory.auditLog(100)
        const shown = [
          JSON.stringify(token),
          inspect(token, { depth: 9 }),
          inspect(directory, { depth: 9 }),
          JSON.stringify(failure),
          Exit.isFailure(failure) ? Cause.pretty(failure.cause) : "",
          JSON.stringify(audit)
        ].join("\n")
        assert.include(shown, nodeKey)
        assert.notInclude(shown, secret)
        for (const file of yield* Effect.promise(() => readdir(stateDir))) {
          const bytes = yield* Effect.promise(() => readFile(join(stateDir, file)))
          assert.isFalse(bytes.includes(secret), file)
        }
      }).pipe(Effect.provide(Directory.layer({ stateDir })))
    }))
})

describe("the audit log's size", () => {
  it.scoped("is bounded, and dials never push out changes", () =>
    Effect.gen(function*() {
      const db = yield* DirectoryDb.make(join(yield* folder, "audit.db"))
      const append = (kind: DirectoryAudit.Kind) =>
        db.write((sql) => DirectoryAudit.append(sql, { kind, nodeName: null, nodeKey: null, detail: {} }))
      yield* append("enrolled")
      yield* append("node_removed")
      for (let i = 0; i < 30; i++) yield* append("dial_denied")
      yield* db.write((sql) => DirectoryAudit.prune(sql, 10))
      const left = yield* db.read((sql) => DirectoryAudit.latest(sql, 1000))
      assert.deepStrictEqual(left.map(({ id }) => id), [32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 2, 1])
    }))
})

describe("the database", () => {
  it.live("waits longer for a lock than SQLite does", () =>
    Effect.scoped(Effect.gen(function*() {
      const stateDir = yield* folder
      const program = `
        import { createClient } from "@libsql/client"
        const client = createClient({ url: process.argv[1] })
        await client.execute("BEGIN IMMEDIATE")
        console.log("held")
        setTimeout(() => client.execute("COMMIT"), 1600)`
      yield* Effect.gen(function*() {
        const directory = yield* Directory.Directory
        const url = `file:${join(stateDir, Directory.DIRECTORY_FILE)}`
        const child = spawn(process.execPath, ["--input-type=module", "-e", program, url])
        yield* Effect.addFinalizer(() => Effect.sync(() => child.kill()))
        yield* Effect.async<void>((resume) => void child.stdout.once("data", () => resume(Effect.void)))
        for (const name of ["a", "b", "c"]) {
          yield* directory.createToken({ role: "client", name, network: null, ttl: Duration.hours(1) })
        }
        assert.strictEqual((yield* directory.auditLog(10)).length, 3)
      }).pipe(Effect.provide(Directory.layer({ stateDir })))
    })))

  it.scoped("is private, and keeps one connection however much is written", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const count = Effect.promise(async () => {
        const links = (await readdir("/proc/self/fd")).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ""))
        return (await Promise.all(links)).filter((path) => path === join(stateDir, Directory.DIRECTORY_FILE)).length
      })
      yield* Effect.gen(function*() {
        const directory = yield* Directory.Directory
        const before = yield* count
        for (let i = 0; i < 40; i++) {
          yield* directory.createToken({ role: "client", name: `n${i}`, network: null, ttl: Duration.hours(1) })
        }
        assert.strictEqual(yield* count, before)
        for (const file of yield* Effect.promise(() => readdir(stateDir))) {
          const { mode } = yield* Effect.promise(() => stat(join(stateDir, file)))
          assert.strictEqual(mode & 0o777, 0o600, file)
        }
      }).pipe(Effect.provide(Directory.layer({ stateDir })))
    }), { skip: process.platform !== "linux" })

  it.scoped("is complete without its log once it is closed", () =>
    Effect.gen(function*() {
      const [stateDir, copy] = [yield* folder, yield* folder]
      yield* Effect.provide(Effect.all([enrol("alice"), enrol("bob")]), Layer.fresh(Directory.layer({ stateDir })))
      const file = Directory.DIRECTORY_FILE
      yield* Effect.promise(() => copyFile(join(stateDir, file), join(copy, file)))
      const nodes = yield* Effect.flatMap(Directory.Directory, ({ listNodes }) => listNodes).pipe(
        Effect.provide(Layer.fresh(Directory.layer({ stateDir: copy })))
      )
      assert.deepStrictEqual(nodes.map(({ name }) => name).sort(), ["alice", "bob"])
    }))

  it.scoped("is shared by many openers, and refused when damaged", () =>
    Effect.gen(function*() {
      const stateDir = yield* folder
      const open = Effect.map(Layer.build(Layer.fresh(Directory.layer({ stateDir }))), (context) => context)
      const opened = yield* Effect.all(Array.from({ length: 5 }, () => open), { concurrency: 5 })
      const [one, two] = opened.map((context) => context.pipe((c) => Layer.succeedContext(c)))
      if (one === undefined || two === undefined) throw new Error("unreachable")
      const { nodeKey } = yield* Effect.provide(enrol("alice"), one)
      const policy = { resources: [resource("wiki")], access: [{ clients: ["*"], resources: ["*"] }] }
      const dial = Effect.flatMap(Directory.Directory, (directory) =>
        tagOf(directory.authorize({ clientKey: nodeKey, host: "wiki", protocol: "tcp", port: 80 })))
      const replace = (policy: Directory.Policy) =>
        Effect.flatMap(Directory.Directory, (directory) =>
          directory.replacePolicy(policy))
      assert.strictEqual(yield* Effect.provide(dial, two), "UnknownResource")
      yield* Effect.provide(replace(policy), one)
      assert.strictEqual(yield* Effect.provide(dial, two), "ok") // what was kept in memory is no longer used
      yield* Effect.provide(replace({ ...policy, access: [] }), one)
      assert.strictEqual(yield* Effect.provide(dial, two), "Denied")

      const bad = yield* folder
      yield* Effect.promise(() => writeFile(join(bad, Directory.DIRECTORY_FILE), "no database ".repeat(1000)))
      const error = yield* Effect.flip(Effect.provide(Directory.Directory, Directory.layer({ stateDir: bad })))
      assert.strictEqual(error.reason, "damaged")
    }))

  it.live("lets one of several racing processes use a token", () =>
    Effect.scoped(Effect.gen(function*() {
      const stateDir = yield* folder
      const script = join("node_modules", ".cache", `sallyport-enrol-${process.pid}.mjs`) // beside the packages it needs
      yield* Effect.acquireRelease(
        Effect.promise(() =>
          build({
            entryPoints: ["test/fixtures/directory/enrol.ts"],
            outfile: script,
            bundle: true,
            format: "esm",
            platform: "node",
            logLevel: "error",
            external: ["@libsql/client", "libsql"],
            banner: {
              js: "import { createRequire } from \"node:module\"; const require = createRequire(import.meta.url);"
            }
          })
        ),
        () => Effect.promise(() => rm(script, { force: true }))
      )
      const token = yield* Effect.flatMap(Directory.Directory, (directory) =>
        directory.createToken({ role: "client", name: "alice", network: null, ttl: Duration.hours(1) })).pipe(
          Effect.provide(Directory.layer({ stateDir }))
        )
      const startAt = String(Date.now() + 2500)
      const outcomes = yield* Effect.all(
        Array.from({ length: 4 }, () =>
          Effect.promise(() =>
            promisify(execFile)(process.execPath, [
              script,
              stateDir,
              token.id,
              Redacted.value(token.secret),
              newKey(),
              startAt
            ])
          )),
        { concurrency: 4 }
      )
      const lines = outcomes.map(({ stdout }) =>
        stdout.trim()
      ).sort()
      assert.deepStrictEqual(lines, ["TokenUsed", "TokenUsed", "TokenUsed", "enrolled alice"])
      const nodes = yield* Effect.flatMap(Directory.Directory, ({ listNodes }) => listNodes).pipe(
        Effect.provide(Directory.layer({ stateDir }))
      )
      assert.strictEqual(nodes.length, 1)
    })))
})

describe("a damaged directory", () => {
  const damage: Readonly<Record<string, (bytes: Buffer) => Uint8Array>> = {
    "is empty": () => new Uint8Array(0),
    "holds zeroes": (bytes) => new Uint8Array(bytes.length),
    "holds zeroes from its second page on": (bytes) =>
      Buffer.alloc(bytes.length).fill(bytes.subarray(0, 4096), 0, 4096),
    "was cut short": (bytes) => bytes.subarray(0, bytes.length / 2)
  }
  for (const [what, change] of Object.entries(damage)) {
    it.scoped(`is refused if it ${what}`, () =>
      Effect.gen(function*() {
        const stateDir = yield* folder
        yield* RelayKeys.ensure(stateDir, true)
        yield* Effect.provide(enrol("laptop"), Directory.layer({ stateDir }))
        const path = join(stateDir, Directory.DIRECTORY_FILE)
        const bytes = yield* Effect.promise(() => readFile(path))
        yield* Effect.promise(() => writeFile(path, change(bytes)))
        const check = Effect.flatMap(Directory.Directory, (directory) => directory.check)
        const error = yield* Effect.flip(Effect.provide(check, Directory.layer({ stateDir })))
        assert.strictEqual(error.reason, "damaged", error.message)
        assert.include(error.message, "restore it from a backup")
      }))
  }
})

describe("the relay's keys", () => {
  it.scoped("are made once, together, and not piece by piece", () =>
    Effect.gen(function*() {
      const stateDir = join(yield* folder, "state")
      const unasked = yield* Effect.flip(RelayKeys.ensure(stateDir, false))
      assert.strictEqual(unasked._tag === "RelayKeysError" ? unasked.reason : "", "absent")
      assert.include(unasked.message, "--new-identity")
      const made = yield* RelayKeys.ensure(stateDir, true)
      assert.notStrictEqual(made.authorityKey, made.tlsKey)
      assert.deepStrictEqual(yield* RelayKeys.ensure(stateDir, false), made)
      assert.strictEqual((yield* Effect.flip(RelayKeys.init(stateDir)))._tag, "RelayKeysError")
      for (const file of ["authority.key", "tls.key", "directory.db"]) {
        const path = join(stateDir, file)
        const bytes = yield* Effect.promise(() => readFile(path))
        yield* Effect.promise(() => rm(path))
        const error = yield* Effect.flip(RelayKeys.ensure(stateDir, true))
        assert.strictEqual(error._tag === "RelayKeysError" ? error.reason : "", "incomplete")
        assert.include(error.message, file)
        yield* Effect.promise(() => writeFile(path, bytes, { mode: 0o600 }))
      }
      yield* Effect.promise(() => chmod(join(stateDir, "tls.key"), 0o644))
      assert.strictEqual((yield* Effect.flip(RelayKeys.ensure(stateDir, true)))._tag, "KeyFileError")
    }))
})
