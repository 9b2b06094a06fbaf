import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { chromium, type Page } from "playwright-core"
import { certify } from "../programs/support/Chromium.ts"
import { have } from "../programs/support/Programs.ts"
import * as Lab from "./Lab.ts"

const CHROMIUM = { program: "chromium", apt: "chromium" }
const SCRIPT = new URL("../../dist/browser/index.js", import.meta.url)
/** Of five MiB each. */
const FILES = 20
/** A browser's first request is shorter than any answer to it; without one it does not learn its own public address. */
const TURN = { udp: `${Lab.RELAY}:3480`, publicAddress: Lab.RELAY, answerShort: true }

const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "browser-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** A page on the client's host, with `connection` in it. The page itself comes from nowhere: only what it opens crosses the lab. */
const openPage = (lab: Lab.Lab, dir: string, spki: string) =>
  Effect.gen(function*() {
    const namespace = (yield* lab.net("ns", "client")).trim()
    const program = join(dir, "chromium")
    writeFileSync(program, `#!/bin/sh\nexec ip netns exec ${namespace} chromium "$@"\n`, { mode: 0o755 })
    const options = {
      executablePath: program,
      args: ["--no-sandbox", `--ignore-certificate-errors-spki-list=${spki}`],
      env: { ...process.env, PATH: Lab.ENV.PATH }
    }
    const browser = yield* Effect.acquireRelease(
      Effect.promise(() => chromium.launchPersistentContext(join(dir, "profile"), options)),
      (it) => Effect.promise(() => it.close())
    )
    const token = yield* lab.admin("token", "create", "--role", "client", "--name", "tab")
    return yield* Effect.promise(async () => {
      const page = await browser.newPage()
      await page.route("http://localhost/**", (route) =>
        route.request().url().endsWith(".js")
          ? route.fulfill({ contentType: "text/javascript", body: readFileSync(SCRIPT) })
          : route.fulfill({ contentType: "text/html", body: "<!doctype html><title>page</title>" }))
      await page.goto("http://localhost/")
      await page.evaluate(`(async () => {
        const { connect } = await import("/index.js")
        globalThis.connection = await connect(${JSON.stringify(token)})
      })()`)
      return page
    })
  })

interface Seen {
  readonly hashes: ReadonlyArray<string>
  readonly ms: number
  readonly firstMs: number
  readonly peer: { readonly local: string | null; readonly remote: string | null; readonly rttMs: number | null }
}

const download = (page: Page, files: number) =>
  Effect.promise(() =>
    page.evaluate<Seen>(`(async () => {
      const began = performance.now()
      let firstMs = 0
      const hashes = []
      for (let at = 0; at < ${files}; at++) {
        const answer = await connection.fetch("http://intranet:8080/file")
        firstMs ||= performance.now() - began
        const digest = await crypto.subtle.digest("SHA-256", await answer.arrayBuffer())
        hashes.push(Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join(""))
      }
      const [{ local, remote, rttMs }] = await connection.peers()
      return { hashes, firstMs, ms: performance.now() - began, peer: { local, remote, rttMs } }
    })()`)
  )

const lab = (
  { client, connector, turn = TURN }: {
    readonly client: Lab.Nat
    readonly connector: Lab.Nat
    readonly turn?: Readonly<Record<string, unknown>>
  },
  files: number
) =>
  Effect.gen(function*() {
    const dir = yield* scratch
    const { authority, files: tls, spki } = yield* Effect.promise(() => certify(dir, "lab-ca", Lab.RELAY))
    const options: Lab.Options = {
      clientNat: client,
      connectorNat: connector,
      relayOnly: true,
      nodes: { webrtc: "auto" },
      relay: { tls, access: [{ clients: ["tab"], resources: ["intranet"] }], turn },
      env: { NODE_EXTRA_CA_CERTS: authority }
    }
    return yield* Lab.use(options, (it) =>
      Effect.gen(function*() {
        yield* it.start("connector")
        const page = yield* openPage(it, dir, spki)
        const seen = yield* download(page, files)
        const mbits = Math.round(files * Lab.FILE_BYTES * 8 / seen.ms / 1000)
        const { firstMs, peer } = seen
        process.stderr.write(`${JSON.stringify({ client, connector, mbits, firstMs: Math.round(firstMs), ...peer })}\n`)
        for (const hash of seen.hashes) assert.strictEqual(hash, Lab.FILE_SHA256)
        return peer
      }))
  })

describe.skipIf(!Lab.isPossible || !have(CHROMIUM))("a browser's tab in a network of its own", () => {
  it.scopedLive("reaches a connector directly through two NATs that filter ports", () =>
    Effect.gen(function*() {
      const { local, remote } = yield* lab({ client: "port-restricted", connector: "port-restricted" }, FILES)
      assert.include(["srflx", "prflx"], local)
      assert.include(["srflx", "prflx"], remote)
    }))

  it.scopedLive("is relayed by TURN if both NATs are symmetric", () =>
    Effect.gen(function*() {
      const { local, remote } = yield* lab({ client: "symmetric", connector: "symmetric" }, 2)
      assert.include([local, remote], "relay")
    }))

  it.scopedLive("is relayed by TURN over TCP if UDP is blocked", () =>
    Effect.gen(function*() {
      const turn = { tcp: `${Lab.RELAY}:3480`, publicAddress: Lab.RELAY }
      const { local } = yield* lab({ client: "udp-blocked", connector: "port-restricted", turn }, 2)
      assert.strictEqual(local, "relay")
    }))
})
