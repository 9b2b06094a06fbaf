import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Lab from "./Lab.ts"
import * as LabPage from "./LabPage.ts"

const SHOT = new URL("../../docs/inspector/roaming.png", import.meta.url).pathname

describe.skipIf(!LabPage.isPossible)("the inspector on a host that roams", () => {
  it.scopedLive("shows path changes and their reasons during a download", () =>
    Lab.use({ nodes: { admin: LabPage.ADMIN } }, (lab) =>
      Effect.gen(function*() {
        const page = yield* LabPage.open(lab)
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
