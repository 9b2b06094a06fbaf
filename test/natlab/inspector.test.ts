import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { chromium } from "playwright-core"
import { have } from "../programs/support/Programs.ts"
import * as Lab from "./Lab.ts"

const CHROMIUM = { program: "chromium", apt: "chromium" }
const ADMIN = "127.0.0.1:9090"
const WAIT_MS = 20_000
const SHOT = new URL("../../docs/inspector/roaming.png", import.meta.url).pathname

/** A page in a browser that runs on a host of the lab. */
const openPage = (lab: Lab.Lab, host: string) =>
  Effect.gen(function*() {
    const namespace = (yield* lab.net("ns", host)).trim()
    const dir = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "browser-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    )
    const program = join(dir, "chromium")
    writeFileSync(program, `#!/bin/sh\nexec ip netns exec ${namespace} chromium "$@"\n`, { mode: 0o755 })
    const env = { ...process.env, PATH: Lab.ENV.PATH }
    const browser = yield* Effect.acquireRelease(
      Effect.promise(() => chromium.launch({ executablePath: program, args: ["--no-sandbox"], env })),
      (it) => Effect.promise(() => it.close())
    )
    return yield* Effect.promise(async () => {
      const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
      page.setDefaultTimeout(WAIT_MS)
      await page.goto(`http://${ADMIN}/`)
      return page
    })
  })

describe.skipIf(!Lab.isPossible || !have(CHROMIUM))("the inspector on a host that roams", () => {
  it.scopedLive("shows the move to the relay and back to a direct path, and why, while a download goes on", () =>
    Lab.use({ nodes: { admin: ADMIN } }, (lab) =>
      Effect.gen(function*() {
        const page = yield* openPage(lab, "client")
        const file = yield* lab.begin("/file?rate=400000")
        yield* Effect.promise(() => page.getByRole("heading", { name: "office direct" }).waitFor())
        yield* lab.net("roam", "client", "client2")
        const timeline = page.locator("ol.timeline")
        yield* Effect.promise(async () => {
          await timeline.getByText("network changed").first().waitFor()
          await page.getByRole("heading", { name: "office direct" }).waitFor()
          await timeline.getByText(/direct (faster|proved)/).nth(1).waitFor() // the second time
        })
        if (process.env["SCREENSHOTS"] !== undefined) {
          yield* Effect.sleep("4 seconds") // some samples for the plot
          yield* Effect.promise(() => page.screenshot({ path: SHOT, fullPage: true }))
        }
        const { code, sha256 } = yield* file.done
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
      })))
})
