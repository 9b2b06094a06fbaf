/** Bundles the suite's thread entry into a directory of its own, so that the suite needs no build. */
import { build } from "esbuild"
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { effectImports } from "../../../scripts/effect-imports.mjs"

/** From here packages that stay outside the bundle are found. */
const CACHE = fileURLToPath(new URL("../../../node_modules/.cache/", import.meta.url))

/** CommonJS packages inside the bundle call `require` for Node's own modules. */
const REQUIRE =
  "import { createRequire as __createRequire } from \"node:module\"; const require = __createRequire(import.meta.url);"

export interface Bundle {
  readonly entry: URL
  /** Serves no actor and is always inside a native library. */
  readonly query: URL
  /** Entries that throw on import, and that never get to serve. */
  readonly throwing: URL
  readonly hanging: URL
  readonly remove: () => Promise<void>
}

export const make = async (): Promise<Bundle> => {
  await mkdir(CACHE, { recursive: true })
  const dir = await mkdtemp(join(CACHE, "actor-runtime-"))
  await build({
    entryPoints: {
      entry: fileURLToPath(new URL("entry.worker.ts", import.meta.url)),
      query: fileURLToPath(new URL("query.worker.ts", import.meta.url))
    },
    outdir: dir,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    external: ["@libsql/client"],
    plugins: [effectImports],
    banner: { js: REQUIRE },
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
    query: url("query.mjs"),
    throwing: url("throwing.mjs"),
    hanging: url("hanging.mjs"),
    remove: () => rm(dir, { recursive: true, force: true })
  }
}
