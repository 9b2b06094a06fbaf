/** Troubles that were made on purpose: what `doctor`, `status` and `path` say of them, and whether it is the cause. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type * as Doctor from "../../src/services/telemetry/Doctor.ts"
import * as Lab from "./Lab.ts"

interface Said {
  readonly findings: ReadonlyArray<Doctor.Finding>
  /** Of the last entry, as `path` tells it. */
  readonly reason: string
  readonly path: string
}

const said = (lab: Lab.Lab): Effect.Effect<Said, Lab.LabFailed> =>
  Effect.gen(function*() {
    const { findings } = JSON.parse(yield* lab.client("doctor", "--json")) as Pick<Said, "findings">
    const { entries } = JSON.parse(yield* lab.client("path", "office", "--json")) as {
      readonly entries: ReadonlyArray<Said>
    }
    const last = entries.at(-1)
    return { findings, path: last?.path ?? "", reason: last?.reason ?? "" }
  })
const what = ({ findings }: Said) => findings.map(({ what }) => what)

describe.skipIf(!Lab.isPossible)("troubles between real NATs", () => {
  it.scopedLive("UDP blocked: doctor says so of the leg and of the peer, and what to open", () =>
    Lab.use({ clientNat: "udp-blocked" }, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ reason }) => reason.includes("udp_blocked"), "15 seconds")
        const told = yield* said(lab)
        assert.isTrue(what(told).some((text) => text.includes("lets no UDP through")))
        assert.isTrue(told.findings.every(({ remedy }) => remedy.startsWith("let UDP out")))
        assert.deepStrictEqual([told.path, told.reason], ["relay", "udp_blocked"])
      })))

  it.scopedLive("symmetric at both ends: doctor names both, and what to do at one side", () =>
    Lab.use({ clientNat: "symmetric", connectorNat: "symmetric" }, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ reason }) => reason === "symmetric_both", "20 seconds")
        const told = yield* said(lab)
        assert.deepStrictEqual(what(told).map((text) => /both networks give every destination/.test(text)), [true])
        assert.deepStrictEqual([told.path, told.reason], ["relay", "symmetric_both"])
      })))

  it.scopedLive("the resource refuses: the trace says so, and doctor blames neither path nor relay", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ path }) => path === "direct", "10 seconds")
        yield* lab.stop("resource")
        const { code } = yield* lab.fetch("/")
        assert.notStrictEqual(code, 0)
        const told = yield* said(lab)
        const trace = yield* lab.client("trace", "--last", "3", "--json")
        assert.deepStrictEqual(told.findings, [])
        assert.match(trace, /refused/)
      })))
})
