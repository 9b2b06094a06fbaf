import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Layer, Option, Redacted, TestClock } from "effect"
import { build } from "esbuild"
import { execFile, spawn } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { chmod, copyFile, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect, promisify } from "node:util"
import type { Resource } from "../../src/protocol/trust/Documents.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Directory from "../../src/services/directory/Directory.ts"
import * as DirectoryAudit from "../../src/services/directory/DirectoryAudit.ts"
import * as DirectoryDb from "../../src/services/directory/DirectoryDb.ts"
import * as RelayKeys from "../../src/services/directory/RelayKeys.ts"
import * as Keys from "../../src/services/identity/Keys.ts"

const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-directory-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)
const newKey = (): NodeKey => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key.publicKey
}
/** Each test gets an empty directory of its own. */
const test = <E>(name: string, body: Effect.Effect<void, E, Directory.Directory>) =>
  it.scoped(name, () => Effect.flatMap(folder, (stateDir) => Effect.provide(body, Directory.layer({ stateDir }))))

const enrol = Effect.fnUntraced(function*(
  name: string,
  role: "client" | "connector" = "client",
  network: string | null = null
) {
  const directory = yield* Directory.Directory
  const token = yield* directory.createToken({ role, name, network, ttl: Duration.hours(1) })
  const nodeKey = newKey()
  const fields = yield* directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
  return { token, nodeKey, fields }
})
const resource = (name: string, over: Partial<Resource> = {}): Resource => ({
  name,
  network: "office",
  address: `${name}.internal`,
  tcp: [{ from: 80, to: 80 }],
  udp: [],
  allowLoopback: false,
  ...over
})
const tagOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.match(effect, { onFailure: ({ _tag }) => _tag, onSuccess: () => "ok" })

describe("enrolment", () => {
  test(
    "lets a token be used once, or by its key",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const { fields, nodeKey, token } = yield* enrol("office-1", "connector", "office")
      assert.deepStrictEqual(fields, { nodeKey, name: "office-1", role: "connector", network: "office" })
      const ask = (nodeKey: NodeKey) =>
        directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
      assert.deepStrictEqual(yield* ask(nodeKey), fields)
      assert.strictEqual(yield* tagOf(ask(newKey())), "TokenUsed")
      yield* TestClock.adjust("2 hours") // a retry may come after the token's end, a stranger still learns no more
      assert.deepStrictEqual(yield* ask(nodeKey), fields)
      assert.strictEqual(yield* tagOf(ask(newKey())), "TokenUsed")
      assert.strictEqual((yield* directory.listNodes).length, 1)
    })
  )

  test(
    "leaves a token usable after a wrong role or name",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const token = yield* directory.createToken({
        role: "connector",
        name: "office",
        network: "office",
        ttl: Duration.hours(1)
      })
      const nodeKey = newKey()
      const ask = (onlyAs: string, onlyNamed: string) =>
        directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs, onlyNamed })
      const role = yield* Effect.flip(ask("client", "office"))
      assert.strictEqual(role._tag, "TokenForOther")
      assert.match(role.message, /for the connector office.*not for a client.*--role client/)
      const name = yield* Effect.flip(ask("connector", "alice"))
      assert.strictEqual(name._tag, "TokenForOther")
      assert.match(name.message, /connector named office.*name: alice; write name: office.*--name alice/)
      assert.deepStrictEqual(yield* directory.listNodes, [])
      assert.strictEqual(yield* tagOf(ask("connector", "office")), "ok")
      assert.strictEqual((yield* Effect.flip(ask("connector", "alice")))._tag, "TokenForOther")
    })
  )

  test(
    "refuses unknown tokens and wrong secrets alike, and expired ones",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const token = yield* directory.createToken({
        role: "client",
        name: "a",
        network: null,
        ttl: Duration.minutes(10)
      })
      const other = yield* directory.createToken({
        role: "client",
        name: "b",
        network: null,
        ttl: Duration.minutes(10)
      })
      const ask = (tokenId: string, secret: Redacted.Redacted) =>
        directory.enrol({ tokenId, secret, nodeKey: newKey(), onlyAs: null })
      assert.strictEqual(yield* tagOf(ask("0000000000000000", token.secret)), "TokenUnknown")
      assert.strictEqual(yield* tagOf(ask(token.id, other.secret)), "TokenUnknown")
      assert.strictEqual(yield* tagOf(ask(token.id, Redacted.make(""))), "TokenUnknown")
      yield* TestClock.adjust("599 seconds")
      assert.strictEqual(yield* tagOf(ask(other.id, other.secret)), "ok")
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual(yield* tagOf(ask(token.id, token.secret)), "TokenExpired")
    })
  )

  test(
    "does not revive tokens when the clock is set back",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const fresh = (name: string) =>
        directory.createToken({ role: "client", name, network: null, ttl: Duration.minutes(10) })
      const begin = yield* Clock.currentTimeMillis
      assert.strictEqual(yield* directory.latestTime, 0)
      const old = yield* fresh("old")
      yield* TestClock.adjust("10 minutes")
      yield* directory.keepTime(yield* Clock.currentTimeMillis)
      yield* TestClock.setTime(begin) // set back
      yield* directory.keepTime(begin)
      assert.strictEqual(yield* directory.latestTime, begin + 600_000)
      const ask = ({ id, secret }: Directory.CreatedToken) =>
        directory.enrol({ tokenId: id, secret, nodeKey: newKey(), onlyAs: null })
      assert.strictEqual(yield* tagOf(ask(old)), "TokenExpired")
      const next = yield* fresh("next")
      assert.strictEqual(next.expiresAt, begin / 1000 + 1200)
      assert.strictEqual(yield* tagOf(ask(next)), "ok")
      yield* directory.removeNode("next")
      assert.deepStrictEqual((yield* directory.removedSince(begin / 1000 + 600)).map(({ name }) => name), ["next"])
    })
  )

  test(
    "lists relays, reports changes, and forgets removed ones",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const ttl = Duration.minutes(10)
      const token = yield* directory.createToken({ role: "relay", name: "relay-2", network: null, ttl })
      const late = yield* directory.createToken({ role: "relay", name: "relay-3", network: null, ttl })
      const nodeKey = newKey()
      yield* directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
      yield* TestClock.adjust("10 minutes")
      const tooLate = directory.enrol({ tokenId: late.id, secret: late.secret, nodeKey: newKey(), onlyAs: null })
      assert.strictEqual(yield* tagOf(tooLate), "TokenExpired")
      assert.deepStrictEqual(yield* directory.relays, [])
      const point = { name: "relay-2", addresses: ["203.0.113.20"], port: 3478 } as const
      const before = yield* directory.latestAuditId
      assert.isTrue(yield* directory.placeRelay(nodeKey, point))
      assert.isFalse(yield* directory.placeRelay(nodeKey, point))
      assert.deepStrictEqual((yield* directory.changesSince(before)).map(({ kind }) => kind), ["relay_placed"])
      assert.isTrue(yield* directory.placeRelay(nodeKey, { ...point, port: 443 }))
      assert.deepStrictEqual(yield* directory.relays, [{ ...point, port: 443 }])
      yield* directory.removeNode("relay-2")
      assert.deepStrictEqual(yield* directory.relays, [])
    })
  )

  test(
    "keeps names unique, and lets one key be one node",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const create = (name: string) =>
        directory.createToken({ role: "client", name, network: null, ttl: Duration.hours(1) })
      const [first, second, third] = [yield* create("alice"), yield* create("alice"), yield* create("bob")]
      const nodeKey = newKey()
      const ask = (token: Directory.CreatedToken, nodeKey: NodeKey) =>
        directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })
      yield* ask(first, nodeKey)
      assert.strictEqual(yield* tagOf(ask(second, newKey())), "NameTaken")
      assert.strictEqual(yield* tagOf(ask(third, nodeKey)), "AlreadyEnrolled")
      assert.strictEqual(yield* tagOf(ask(second, nodeKey)), "ok") // the same node with a new token
      assert.strictEqual(yield* tagOf(create("alice")), "NameTaken")
    })
  )

  test(
    "shows a node's name as written, and compares any spelling",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const { fields } = yield* enrol("Johns-MacBook-Pro.local")
      yield* enrol("Büro.example", "connector", "office")
      assert.strictEqual(fields.name, "johns-macbook-pro.local")
      assert.deepStrictEqual((yield* directory.listNodes).map(({ name, shown }) => [name, shown]), [
        ["johns-macbook-pro.local", "Johns-MacBook-Pro.local"],
        ["xn--bro-hoa.example", "Büro.example"]
      ])
      const ttl = Duration.hours(1)
      const taken = yield* Effect.flip(
        directory.createToken({ role: "client", name: "johns-macbook-PRO.local.", network: null, ttl })
      )
      assert.include(taken.message, "there is a node named Johns-MacBook-Pro.local;")
      assert.isTrue(Option.isSome(yield* directory.removeNode("BÜRO.example")))
    })
  )

  test(
    "shows a resource's name as written, signs the normal one",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const { nodeKey } = yield* enrol("Alice")
      const access = [{ clients: ["alice"], resources: ["db_1"] }]
      const policy = (shown: string) => ({ resources: [{ ...resource("db_1"), shown }], access })
      assert.isTrue(yield* directory.replacePolicy(policy("DB_1")))
      assert.isFalse(yield* directory.replacePolicy(policy("DB_1")))
      const refused = yield* Effect.flip(
        directory.authorize({ clientKey: nodeKey, host: "db_1", protocol: "tcp", port: 81 })
      )
      assert.match(refused.message, /^DB_1 does not list tcp port 81/)
      assert.isTrue(yield* directory.replacePolicy(policy("Db_1")))
      const [first] = yield* directory.allResourcesFor(nodeKey, null)
      assert.deepStrictEqual([first?.name, first?.shown], ["db_1", "Db_1"])
    })
  )

  test(
    "refuses a removed key permanently, and frees its name",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const { nodeKey, token } = yield* enrol("alice")
      assert.isTrue(Option.isSome(yield* directory.findNode(nodeKey)))
      assert.deepStrictEqual(Option.map(yield* directory.removeNode("alice"), ({ key }) => key), Option.some(nodeKey))
      assert.isTrue(Option.isNone(yield* directory.findNode(nodeKey)))
      assert.isTrue(Option.isNone(yield* directory.removeNode("alice")))
      assert.strictEqual(
        yield* tagOf(directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey, onlyAs: null })),
        "NodeRemoved"
      )
      const again = yield* directory.createToken({
        role: "client",
        name: "alice",
        network: null,
        ttl: Duration.hours(1)
      })
      const ask = (nodeKey: NodeKey) =>
        directory.enrol({ tokenId: again.id, secret: again.secret, nodeKey, onlyAs: null })
      assert.strictEqual(yield* tagOf(ask(nodeKey)), "NodeRemoved")
      assert.strictEqual(yield* tagOf(ask(newKey())), "ok")
    })
  )

  test(
    "tells who was removed since when, the newest first",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const { nodeKey } = yield* enrol("alice")
      yield* enrol("bob")
      yield* TestClock.adjust("1 hour")
      yield* directory.removeNode("alice")
      const at = 3600
      assert.deepStrictEqual(yield* directory.removedSince(at), [{ key: nodeKey, name: "alice", removedAt: at }])
      yield* TestClock.adjust("1 minute")
      yield* directory.removeNode("bob")
      assert.deepStrictEqual((yield* directory.removedSince(0)).map(({ name }) => name), ["bob", "alice"])
      assert.deepStrictEqual((yield* directory.removedSince(at + 1)).map(({ name }) => name), ["bob"])
      assert.deepStrictEqual(yield* directory.removedSince(at + 61), [])
    })
  )

  test(
    "leaves a token alone if only another role is possible",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const ttl = Duration.hours(1)
      const token = yield* directory.createToken({ role: "connector", name: "office", network: "office", ttl })
      const ask = (onlyAs: "client" | null) =>
        directory.enrol({ tokenId: token.id, secret: token.secret, nodeKey: newKey(), onlyAs })
      const { message } = yield* Effect.flip(ask("client"))
      assert.match(message, /for the connector office.*not for a client.*--role client/)
      assert.strictEqual(yield* tagOf(ask(null)), "ok")
      assert.strictEqual(yield* tagOf(ask(null)), "TokenUsed")
    })
  )

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

describe("access", () => {
  test(
    "is denied by default, and the reasons differ",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const { nodeKey: alice } = yield* enrol("alice")
      const { nodeKey: bob } = yield* enrol("bob")
      const { nodeKey: connector } = yield* enrol("office-1", "connector", "office")
      const dial = (clientKey: NodeKey, host: string, port = 80, protocol: "tcp" | "udp" = "tcp") =>
        tagOf(directory.authorize({ clientKey, host, protocol, port }))
      const resources = [resource("wiki", { address: "10.0.0.5" }), resource("mail")]
      yield* directory.replacePolicy({ resources, access: [] })
      assert.strictEqual(yield* dial(alice, "wiki"), "Denied")
      yield* directory.replacePolicy({ resources, access: [{ clients: ["alice"], resources: ["wiki"] }] })
      assert.strictEqual(yield* dial(alice, "wiki"), "ok")
      assert.strictEqual(yield* dial(alice, "WIKI"), "ok")
      assert.strictEqual(yield* dial(alice, "10.0.0.5"), "ok")
      assert.strictEqual(yield* dial(alice, "wiki", 81), "PortNotListed")
      assert.strictEqual(yield* dial(alice, "wiki", 80, "udp"), "PortNotListed")
      assert.strictEqual(yield* dial(alice, "mail"), "Denied")
      assert.strictEqual(yield* dial(alice, "mail", 81), "Denied") // not whether the port is open
      assert.strictEqual(yield* dial(alice, "nothing"), "UnknownResource")
      assert.strictEqual(yield* dial(bob, "wiki"), "Denied")
      assert.strictEqual(yield* dial(newKey(), "wiki"), "Denied")
      assert.strictEqual(yield* dial(connector, "wiki"), "Denied")
      yield* directory.removeNode("alice")
      assert.strictEqual(yield* dial(alice, "wiki"), "Denied")
    })
  )

  test(
    "grants all that the client may reach in one network",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const { nodeKey: alice } = yield* enrol("alice")
      const { nodeKey: bob } = yield* enrol("bob")
      const resources = [resource("wiki"), resource("mail"), resource("cam", { network: "home" })]
      yield* directory.replacePolicy({
        resources,
        access: [{ clients: ["alice"], resources: ["*"] }, { clients: ["*"], resources: ["mail"] }]
      })
      const names = (key: NodeKey, network: string | null) =>
        Effect.map(directory.allResourcesFor(key, network), (found) => found.map(({ name }) => name))
      assert.deepStrictEqual(yield* names(alice, "office"), ["wiki", "mail"])
      assert.deepStrictEqual(yield* names(alice, "home"), ["cam"])
      assert.deepStrictEqual(yield* names(alice, null), ["wiki", "mail", "cam"])
      assert.deepStrictEqual(yield* names(bob, "office"), ["mail"])
      assert.deepStrictEqual(yield* names(newKey(), "office"), [])
      const found = yield* directory.authorize({ clientKey: alice, host: "cam", protocol: "tcp", port: 80 })
      assert.deepStrictEqual([found.network, found.resource], ["home", resources[2]])
    })
  )

  test(
    "is what the configuration says, whole or not at all",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      const policy = { resources: [resource("wiki")], access: [{ clients: ["*"], resources: ["wiki"] }] }
      assert.isTrue(yield* directory.replacePolicy(policy))
      const id = yield* directory.latestAuditId
      assert.isFalse(yield* directory.replacePolicy(policy))
      assert.strictEqual(yield* directory.latestAuditId, id)
      const twice = { ...policy, resources: [resource("mail"), resource("mail")] } // breaks the uniqueness of names
      assert.strictEqual(yield* tagOf(directory.replacePolicy(twice)), "DirectoryError")
      assert.deepStrictEqual(yield* directory.resources, policy.resources)
      assert.isTrue(yield* directory.replacePolicy({ resources: [], access: [] }))
      assert.deepStrictEqual(yield* directory.resources, [])
    })
  )
})

describe("the audit log", () => {
  test(
    "tells a running relay what changed, and keeps dials apart",
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      assert.strictEqual(yield* directory.latestAuditId, 0)
      const { nodeKey } = yield* enrol("alice")
      const seen = yield* directory.latestAuditId
      yield* Effect.exit(directory.authorize({ clientKey: nodeKey, host: "x".repeat(999), protocol: "tcp", port: 1 }))
      assert.strictEqual(yield* directory.latestAuditId, seen)
      yield* directory.removeNode("alice")
      const changes = yield* directory.changesSince(seen)
      assert.deepStrictEqual(changes.map(({ kind, nodeKey, nodeName }) => [kind, nodeName, nodeKey]), [
        ["node_removed", "alice", nodeKey]
      ])
      const log = yield* directory.auditLog(10)
      assert.deepStrictEqual(log.map(({ kind }) => kind), ["node_removed", "dial_denied", "enrolled", "token_created"])
      assert.isBelow(JSON.stringify(log).length, 2000)
      assert.isTrue(log.every(({ at }) => at === 0))
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    })
  )
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
