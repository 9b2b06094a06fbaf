import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Real threads, sockets and NATs on a machine that others may be using: a try that timed out is told, and made again. */
const RETRIES = 2

/** The simulations take minutes: begun last, one of them would keep one core waiting for the other. */
class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const isLong = ({ moduleId }: TestSpecification) => Number(moduleId.includes("/test/sim/Nodes"))
    return (await super.sort(files)).sort((a, b) => isLong(b) - isLong(a))
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      { test: { name: "unit", include: ["test/{unit,property,sim,suite}/**/*.test.ts"], testTimeout: 30_000 } },
      {
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          retry: RETRIES,
          testTimeout: 120_000,
          hookTimeout: 60_000,
          fileParallelism: false
        }
      },
      {
        test: {
          name: "programs",
          include: ["test/programs/**/*.test.ts"],
          testTimeout: 180_000,
          hookTimeout: 60_000,
          fileParallelism: false
        }
      },
      {
        test: {
          name: "natlab",
          include: ["test/natlab/**/*.test.ts"],
          retry: RETRIES,
          testTimeout: 300_000,
          hookTimeout: 120_000
        }
      }
    ]
  }
})
