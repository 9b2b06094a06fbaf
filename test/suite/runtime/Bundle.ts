/** Bundles the suite's thread entry into a directory of its own, so that the suite needs no build. */
import { build } from "esbuild"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

export interface Bundle {
  readonly entry: URL
  /** Entries that throw on import, and that never get to serve. */
  readonly throwing: URL
  readonly hanging: URL
  readonly remove: () => Promise<void>
}

export const make = async (): Promise<Bundle> => {
  const dir = await mkdtemp(join(tmpdir(), "actor-runtime-"))
  const outfile = join(dir, "entry.mjs")
  await build({
    entryPoints: [fileURLToPath(new URL("entry.worker.ts", import.meta.url))],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    logLevel: "warning"
  })
  await writeFile(join(dir, "throwing.mjs"), "throw new Error(\"bad entry\")\n")
  await writeFile(join(dir, "hanging.mjs"), "setInterval(() => {}, 1000)\n")
  const url = (name: string) => pathToFileURL(join(dir, name))
  return {
    entry: url("entry.mjs"),
    throwing: url("throwing.mjs"),
    hanging: url("hanging.mjs"),
    remove: () => rm(dir, { recursive: true, force: true })
  }
}
