/** The commands over the real keys and directory of a relay. */
import { assert, it } from "@effect/vitest"
import { type Console, Effect, Either } from "effect"
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { layer } from "../../src/cli/BackendLive.ts"
import * as Cli from "../../src/cli/Cli.ts"
import * as EnrolmentToken from "../../src/protocol/trust/EnrolmentToken.ts"
import { Directory, layer as layerDirectory } from "../../src/services/directory/Directory.ts"
import * as Keys from "../../src/services/identity/Keys.ts"

const dir = mkdtempSync(join(tmpdir(), "cli-backend-"))
afterAll(() => rmSync(dir, { recursive: true }))
const file = join(dir, "relay.yaml")
const stateDir = join(dir, "state")

const cli = (...args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    let stdout = ""
    let stderr = ""
    const captured: Console.Console = {
      ...(yield* Effect.console),
      log: (...values) => Effect.sync(() => void (stdout += values.join(" "))),
      error: (...values) => Effect.sync(() => void (stderr += values.join(" ")))
    }
    const code = yield* Cli.main(args, { colours: false }).pipe(Effect.provide(layer), Effect.withConsole(captured))
    return { code, stdout, stderr }
  })

it.live("makes a relay, and enrols, lists and removes a node", () =>
  Effect.gen(function*() {
    const made = yield* cli("relay", "init", "--dir", dir, "--host", "relay.example.com", "--https-port", "8443")
    assert.deepStrictEqual([made.code, made.stderr], [0, ""])
    assert.deepStrictEqual(readdirSync(stateDir).filter((name) => name.endsWith(".key")).sort(), [
      "authority.key",
      "tls.key"
    ])
    assert.strictEqual(statSync(join(stateDir, "tls.key")).mode & 0o777, 0o600)

    yield* Effect.gen(function*() {
      const running = yield* Directory
      const { code, stderr, stdout } = yield* cli(
        "token",
        "create",
        "--config",
        file,
        "--role",
        "connector",
        "--name",
        "office",
        "--network",
        "hq"
      )
      assert.deepStrictEqual([code, stderr], [0, ""])
      const token = Either.getOrThrow(EnrolmentToken.parse(stdout))
      assert.deepInclude(token, { host: "relay.example.com", httpsPort: 8443 })
      assert.strictEqual(token.tls._tag, "Pin")

      const { publicKey } = yield* Keys.loadOrCreate(join(dir, "node.key"))
      yield* running.enrol({ tokenId: token.id, secret: token.secret, nodeKey: publicKey, onlyAs: null })
      const listed = yield* cli("node", "list", "--config", file, "--json")
      const [row] = JSON.parse(listed.stdout).nodes
      assert.deepInclude(row, { name: "office", role: "connector", network: "hq", nodeKey: publicKey })
      assert.match(row.enrolledAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)

      const taken = yield* cli("token", "create", "--config", file, "--role", "client", "--name", "office")
      assert.strictEqual(taken.code, 1)
      assert.include(taken.stderr, "sallyport: there is a node named office; choose another name")

      assert.strictEqual((yield* cli("node", "remove", "--config", file, "office")).stdout, "Removed office.")
      assert.deepStrictEqual(yield* running.listNodes, [])
    }).pipe(Effect.provide(layerDirectory({ stateDir })))
  }))

it.live("makes nothing in the folder of a missing relay", () =>
  Effect.gen(function*() {
    const other = join(dir, "other.yaml")
    writeFileSync(
      other,
      "role: relay\nname: r\nstateDir: none\nlisten: {https: \"0.0.0.0:443\", udp: \"0.0.0.0:3478\"}\nadvertise: {host: a.example}\n"
    )
    for (
      const args of [["token", "create", "--role", "client", "--name", "a"], ["node", "list"], ["node", "remove", "a"]]
    ) {
      const { code, stderr, stdout } = yield* cli(...args, "--config", other)
      assert.deepStrictEqual([code, stdout], [1, ""])
      assert.include(stderr, `sallyport: there is no relay in ${dir}/none: `)
    }
    assert.notInclude(readdirSync(dir), "none")
  }))
