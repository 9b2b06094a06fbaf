/** The inspector of a lab's client, in a real browser on the client's host. */
import { Effect } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { chromium } from "playwright-core"
import { have } from "../programs/support/Programs.ts"
import { HANG_MS } from "../support/Hang.ts"
import * as Lab from "./Lab.ts"

const CHROMIUM = { program: "chromium", apt: "chromium" }

/** For the nodes' configuration. */
export const ADMIN = "127.0.0.1:9090"
export const isPossible: boolean = Lab.isPossible && have(CHROMIUM)

export const open = (lab: Lab.Lab) =>
  Effect.gen(function*() {
    const namespace = (yield* lab.net("ns", "client")).trim()
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
      page.setDefaultTimeout(HANG_MS)
      await page.goto(`http://${ADMIN}/`)
      return page
    })
  })
