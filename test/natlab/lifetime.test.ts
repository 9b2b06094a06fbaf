import { assert, describe, it } from "@effect/vitest"
import { Effect, Predicate, Schedule } from "effect"
import { type Lifetime, STEPS_MS } from "../../src/protocol/nat/MappingLifetime.ts"
import { KEEPALIVE_MS } from "../../src/protocol/path/PathMachine.ts"
import type { Peer } from "../../src/roles/Running.ts"
import * as Lab from "./Lab.ts"

/** Less than any gap between keepalives that does not know of it. */
const TIMEOUT_S = 15
/** The connector's, from outside. */
const CONNECTOR = "198.51.100.34"
const FOUND_WITHIN = "90 seconds"
/** Longer than two of the gaps that would lose a mapping. */
const WATCHED_S = Math.ceil(2.4 * KEEPALIVE_MS / 1000)

const isDirect = ({ path }: Peer) => path === "direct"

/** Whether the client's NAT has a mapping towards an address now. */
const isMapped = (lab: Lab.Lab, address: string) =>
  Effect.map(lab.net("mappings", "client", address), (count) => Number(count) > 0)

const lifetimeOf = (lab: Lab.Lab) =>
  Effect.map(lab.client("netcheck", "--json"), (text) => {
    const { lifetime } = JSON.parse(text) as { readonly lifetime: Lifetime | null }
    return lifetime
  })

describe.skipIf(!Lab.isPossible)("NATs that forget soon", () => {
  it.scopedLive(`keepalives follow a NAT that forgets after ${TIMEOUT_S} s`, () =>
    Lab.use({ before: [["udptimeout", "client", String(TIMEOUT_S)]] }, (lab) =>
      Effect.gen(function*() {
        assert.strictEqual((yield* lab.fetch("/")).code, 0)
        yield* lab.untilPeer(isDirect)
        let lost = 0
        const lifetime = yield* lifetimeOf(lab).pipe(
          Effect.tap(() => Effect.map(isMapped(lab, CONNECTOR), (mapped) => void (lost += mapped ? 0 : 1))),
          Effect.filterOrFail(Predicate.isNotNull, () => new Lab.LabFailed({ message: "not yet" })),
          Effect.retry(Schedule.spaced("1 seconds")),
          Effect.timeoutFail({
            duration: FOUND_WITHIN,
            onTimeout: () => new Lab.LabFailed({ message: "no lifetime was found" })
          })
        )
        process.stderr.write(`${JSON.stringify({ lifetime, lostBefore: lost })}\n`)
        assert.isNull(lifetime.reason)
        assert.isAtMost(lifetime.heldMs, TIMEOUT_S * 1000)
        assert.isAtLeast(lifetime.heldMs, STEPS_MS[0]! - 2_000)
        assert.isAtLeast(lifetime.lostMs!, TIMEOUT_S * 1000)
        assert.isAbove(lost, 0, "with the usual keepalive the mapping was lost")

        yield* Effect.retry(
          Effect.filterOrFail(isMapped(lab, CONNECTOR), (mapped) => mapped),
          Schedule.intersect(Schedule.spaced("1 seconds"), Schedule.recurs(30))
        )
        for (let second = 0; second < WATCHED_S; second++) {
          assert.isTrue(yield* isMapped(lab, CONNECTOR), `towards the connector, after ${second} s`)
          assert.isTrue(yield* isMapped(lab, Lab.RELAY), `towards the relay, after ${second} s`)
          yield* Effect.sleep("1 seconds")
        }
        assert.isTrue(isDirect(yield* lab.peer))
        assert.strictEqual((yield* lab.fetch("/")).code, 0)
      })))
})
