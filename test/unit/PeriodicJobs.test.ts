/** Jobs that run period after period: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Option, Stream, TestClock } from "effect"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as TimeKeeper from "../../src/actors/signaling/TimeKeeper.ts"
import * as Keys from "../../src/services/Keys.ts"
import * as RelayTls from "../../src/services/RelayTls.ts"

const PERIODS = 4

describe("every period", () => {
  it.scoped("the relay issues a new TLS certificate, before the old one ends", () =>
    Effect.gen(function*() {
      const stateDir = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-periods-"))),
        (path) => Effect.promise(() => rm(path, { recursive: true }))
      )
      yield* TestClock.setTime(Date.parse("2026-03-01T12:00:00Z"))
      yield* Keys.loadOrCreate(join(stateDir, RelayTls.TLS_KEY_FILE))
      yield* Effect.gen(function*() {
        const service = yield* RelayTls.RelayTls
        for (let period = 1; period <= PERIODS; period++) {
          const before = yield* service.current
          const next = yield* Effect.fork(
            Stream.runHead(Stream.filter(service.changes, ({ cert }) => cert !== before.cert))
          )
          yield* TestClock.adjust("170 hours")
          const after = Option.getOrThrow(yield* Fiber.join(next))
          assert.isAbove(after.notAfter, before.notAfter, `period ${period}`)
          assert.isAbove(before.notAfter, yield* Clock.currentTimeMillis, `period ${period}`)
        }
      }).pipe(Effect.provide(RelayTls.layer({ stateDir, host: "relay.example.com", tls: null })))
    }))

  it.scoped("a node asks for the directory's time and follows it", () =>
    Effect.gen(function*() {
      const clock = yield* Effect.clock
      let directoryMs = 0 // what the directory's clock is ahead of this host's
      let asked = 0
      const keeper = yield* TimeKeeper.make({
        hostMs: () => clock.unsafeCurrentTimeMillis(),
        onLearned: () => Effect.void
      })
      const ask = Effect.sync(() => {
        asked++
        return clock.unsafeCurrentTimeMillis() + directoryMs
      })
      yield* Effect.forkScoped(keeper.keep(ask, Stream.never))
      for (let period = 1; period <= PERIODS; period++) {
        directoryMs = period * 60_000
        const before = asked
        yield* TestClock.adjust("6 minutes")
        assert.isAbove(asked, before, `period ${period}`)
        assert.closeTo(keeper.learned?.offsetMs ?? 0, directoryMs, 1, `period ${period}`)
      }
    }))
})
