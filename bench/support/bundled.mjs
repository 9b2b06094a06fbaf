/** Runs a benchmark that is written in TypeScript, with the arguments of this process; ends with its exit code. */
import { build } from "esbuild"
import { spawn } from "node:child_process"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const ROOT = fileURLToPath(new URL("../..", import.meta.url))

/** `name`.ts in `bench/`. The bundle lies where the packages are found, as deep below the root as the tests that it takes parts of. */
export async function runBundled(name, below = ".bench") {
  const outfile = join(ROOT, "dist", below, `${name}-${process.pid}.mjs`)
  try {
    await build({
      entryPoints: [join(ROOT, "bench", `${name}.ts`)],
      outfile,
      bundle: true,
      format: "esm",
      platform: "node",
      packages: "external",
      logLevel: "error"
    })
    const child = spawn(process.execPath, [outfile, ...process.argv.slice(2)], { stdio: "inherit" })
    process.on("SIGINT", () => {}) // a terminal tells the child, too; who has a lab takes it down first
    process.on("SIGTERM", () => child.kill("SIGTERM"))
    process.exitCode = await new Promise((resolve) => child.once("exit", (code) => resolve(code ?? 1)))
  } finally {
    rmSync(outfile, { force: true })
  }
}
