// Types and Effect's own diagnostics of the project, by one compiler: Effect's command beside tsc checks all types again for every
// 50 files. What patches TypeScript patches a copy of it, kept by both versions; the one that builds stays as it is.
import { execFileSync, spawnSync } from "node:child_process"
import { cpSync, existsSync, readFileSync, renameSync } from "node:fs"
import { fileURLToPath } from "node:url"

const modules = fileURLToPath(new URL("../node_modules", import.meta.url))
const versionOf = (name) => JSON.parse(readFileSync(`${modules}/${name}/package.json`, "utf8")).version
const copy = `${modules}/.cache/typescript-${versionOf("typescript")}-effect-${versionOf("@effect/language-service")}`

if (!existsSync(copy)) {
  const unfinished = `${copy}-${process.pid}`
  cpSync(`${modules}/typescript`, unfinished, { recursive: true })
  execFileSync(`${modules}/.bin/effect-language-service`, ["patch", "--dir", unfinished, "--module", "tsc"], {
    stdio: ["ignore", "ignore", "inherit"]
  })
  renameSync(unfinished, copy)
}
const project = fileURLToPath(new URL("../tsconfig.json", import.meta.url))
const { status } = spawnSync(process.execPath, [`${copy}/lib/tsc.js`, "--noEmit", "-p", project], { stdio: "inherit" })
process.exit(status ?? 1)
