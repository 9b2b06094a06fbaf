// Calls per second between actors, and boot time and memory of one thread, bundled and not. Run: node bench/actor-runtime.mjs
import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const dir = mkdtempSync(join(tmpdir(), "actor-runtime-bench-"))
const RUNS = 5

const bundle = (source, outfile) =>
  build({
    entryPoints: [join(root, source)],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    logLevel: "warning"
  })
const run = (...args) => execFileSync(process.execPath, [join(dir, "bench.mjs"), ...args], { encoding: "utf8" }).trim()

try {
  symlinkSync(join(root, "node_modules"), join(dir, "node_modules"))
  await bundle("bench/actorRuntime.ts", join(dir, "bench.mjs"))
  await bundle("test/suite/runtime/entry.worker.ts", join(dir, "bundled.mjs"))
  // The same entry as plain files: what tsc makes of it, importing packages from node_modules.
  execFileSync(process.execPath, [
    ...[
      join(root, "node_modules/typescript/bin/tsc"),
      join(root, "test/suite/runtime/entry.worker.ts"),
      "--outDir",
      join(dir, "plain")
    ],
    ..."--strict --exactOptionalPropertyTypes --noUncheckedIndexedAccess --verbatimModuleSyntax --types node --lib es2023 --target es2023 --module nodenext --skipLibCheck --rewriteRelativeImportExtensions --rootDir"
      .split(" "),
    root
  ], { cwd: root, stdio: "inherit" })
  execFileSync("sh", ["-c", `echo '{"type":"module"}' > ${join(dir, "plain/package.json")}`])
  const entries = { bundled: join(dir, "bundled.mjs"), plain: join(dir, "plain/test/suite/runtime/entry.worker.js") }
  for (const [entry, file] of Object.entries(entries)) {
    const runs = Array.from({ length: RUNS }, () => JSON.parse(run("boot", file)))
    const median = (key) => runs.map((it) => it[key]).sort((a, b) => a - b)[RUNS >> 1]
    console.log(
      JSON.stringify({ figure: "boot", entry, bootMsMedian: median("bootMs"), rssMbMedian: median("rssMb"), runs })
    )
  }
  console.log(run("calls", entries.bundled))
} finally {
  rmSync(dir, { recursive: true, force: true })
}
