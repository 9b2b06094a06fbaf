import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { spawnSync } from "node:child_process"
import { HANG_MS } from "../support/Hang.ts"
import * as Lab from "./Lab.ts"

/** The outer address of the connector's gateway at which miniupnpd maps. */
const OUTSIDE = "45.45.45.3"

const DAEMON = "miniupnpd"
const hasDaemon = Lab.isPossible && spawnSync(DAEMON, ["--version"], { env: Lab.ENV }).error === undefined
if (Lab.isPossible && !hasDaemon) {
  process.stderr.write("PORT MAPPINGS NOT TRIED: miniupnpd is not installed (Debian: miniupnpd-nftables).\n")
}

/** Until a node's log has a line with all of these. */
const logged = (lab: Lab.Lab, role: Lab.Role, count: number, ...words: ReadonlyArray<string>) =>
  Effect.suspend(() => {
    const lines = lab.log(role).filter((line) => words.every((word) => line.includes(word)))
    return lines.length >= count ? Effect.void : Effect.fail("not yet")
  }).pipe(
    Effect.retry(Schedule.spaced("50 millis")),
    Effect.timeoutFail({
      duration: HANG_MS,
      onTimeout: () => new Lab.LabFailed({ message: `${role} has not logged: ${words.join(", ")}` })
    })
  )

const symmetric = { clientNat: "symmetric", connectorNat: "symmetric" } as const

describe.skipIf(!hasDaemon)("ports that a gateway maps", () => {
  for (const [kind, protocol] of [[[], "pcp"], [["upnp"], "upnp"]] as const) {
    it.scopedLive(`symmetric on both sides with ${protocol} at one gateway: direct`, () =>
      Lab.use({ ...symmetric, before: [["mapper", "connector", "on", ...kind]] }, (lab) =>
        Effect.gen(function*() {
          yield* logged(lab, "connector", 1, "port mapped at the gateway", `"${protocol}"`, OUTSIDE)
          assert.strictEqual((yield* lab.fetch("/")).code, 0)
          yield* lab.untilPeer(({ path }) => path === "direct")
          const before = yield* lab.relayBytes
          assert.strictEqual((yield* lab.fetch("/file")).sha256, Lab.FILE_SHA256)
          assert.isBelow((yield* lab.relayBytes) - before, Lab.FILE_BYTES / 20, "the file did not cross the relay")
        })))
  }

  it.scopedLive("a restarted gateway maps again, and a stopped connector unmaps", () =>
    Lab.use({ ...symmetric, before: [["mapper", "connector", "on"]] }, (lab) =>
      Effect.gen(function*() {
        yield* logged(lab, "connector", 1, "port mapped at the gateway")
        assert.match(yield* lab.net("mapped", "connector"), /dnat ip to 10\.20\.0\.10/)
        yield* lab.net("mapper", "connector", "on")
        const again = Effect.filterOrFail(lab.net("mapped", "connector"), (rules) => rules.includes("dnat"))
        yield* again.pipe(Effect.retry(Schedule.spaced("100 millis")), Effect.timeout(HANG_MS))
        yield* lab.stop("connector")
        assert.notInclude(yield* lab.net("mapped", "connector"), "dnat")
      })))
})
