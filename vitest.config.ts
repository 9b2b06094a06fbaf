import { defineConfig } from "vitest/config"

/** Real threads, sockets and NATs on a machine that others may be using: a try that timed out is told, and made again. */
const RETRIES = 2

export default defineConfig({
  test: {
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
          hookTimeout: 120_000,
          fileParallelism: false
        }
      }
    ]
  }
})
