// How soon a removed node's flow is cut, and how soon new flows work when a data thread died: node bench/supervision.mjs [clients=20] [connectors=5]
// On loopback, with real threads, in one process. Build first. Prints one JSON object: p50, p99 and all figures, in ms; null: not within 10 s.
import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const dir = join(root, "dist/.bench") // where the bundle finds the thread entry and the packages
const outfile = join(dir, "supervision.mjs")

try {
  await build({
    entryPoints: [join(root, "bench/supervision.ts")],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    packages: "external",
    logLevel: "error"
  })
  execFileSync(process.execPath, [outfile, ...process.argv.slice(2)], { stdio: "inherit" })
} finally {
  rmSync(dir, { recursive: true, force: true })
}
