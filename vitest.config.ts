import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Real threads, sockets and NATs on a machine that others may be using: a try that timed out is told, and made again. */
const RETRIES = 2
/** A unit test that takes longer than this hangs. It is no measure of speed: a busy machine is slow. */
const HANG_MS = 180_000

/** These take minutes: begun last, one of them would keep one core waiting for the other. */
const LONG = ["/test/sim/Nodes", "/test/natlab/lifetime"]

class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const isLong = ({ moduleId }: TestSpecification) => Number(LONG.some((part) => moduleId.includes(part)))
    return (await super.sort(files)).sort((a, b) => isLong(b) - isLong(a))
  }
}

/** Each sets lifetimes or timers for its whole process, so it shares no process with other tests. */
const LIVES = [
  "test/sim/{Hours,ShortLives}.test.ts",
  "test/unit/{Host,Listen,Mux,Page,Relay,Supervisor,Timer,WebRtc}Jobs.test.ts"
]

/** What takes a process's memory and stalls must have the machine to itself: after the others, one at a time. */
const MEASURED = ["test/programs/{bulk,garbage}.test.ts"]

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    // The simulations make much that is gone at once: with V8's own 16 MiB for it a fifth of their time is its collection.
    poolOptions: { forks: { execArgv: ["--max-semi-space-size=64"] } },
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/{unit,property,sim,suite}/**/*.test.ts"],
          exclude: LIVES,
          testTimeout: HANG_MS,
          hookTimeout: HANG_MS
        }
      },
      { test: { name: "lives", include: LIVES, testTimeout: HANG_MS, hookTimeout: HANG_MS } },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          retry: RETRIES,
          testTimeout: 120_000,
          hookTimeout: HANG_MS,
          fileParallelism: false
        }
      },
      {
        test: {
          name: "programs",
          include: ["test/programs/**/*.test.ts"],
          exclude: MEASURED,
          retry: RETRIES,
          testTimeout: 180_000,
          hookTimeout: HANG_MS
        }
      },
      {
        test: {
          name: "measured",
          include: MEASURED,
          testTimeout: 180_000,
          hookTimeout: HANG_MS,
          poolOptions: { forks: { singleFork: true } }
        }
      },
      { test: { name: "soak", include: ["test/soak/**/*.test.ts"], hookTimeout: HANG_MS } },
      {
        test: {
          name: "natlab",
          include: ["test/natlab/**/*.test.ts"],
          retry: RETRIES,
          testTimeout: 300_000,
          hookTimeout: HANG_MS
        }
      }
    ]
  }
})
