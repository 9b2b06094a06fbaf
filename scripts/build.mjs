// Bundles the command line, the library and the thread entries into dist/, and writes the library's declarations.
// Bundled thread entries boot several times faster than unbundled ones (docs/decisions/0002-bundled-threads.md).
import { analyzeMetafile, build } from "esbuild"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { copyFileSync, existsSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { effectImports } from "./effect-imports.mjs"

const root = fileURLToPath(new URL("..", import.meta.url))
/** With `--short-lifetimes`: the build of the soak test, in which grants, tickets and the like last seconds. Never released. */
const isSoak = process.argv.includes("--short-lifetimes")
/** With `--brief-lifetimes`: a build for one test, in which only grants last seconds (`Lifetimes.BRIEF`). Never released. */
const isBrief = process.argv.includes("--brief-lifetimes")
const isShort = isSoak || isBrief
const out = `${root}${isBrief ? "dist-brief" : isSoak ? "dist-soak" : "dist"}`
const source = (path) => `${root}src/${path}`
const entries = { index: "index.ts", "cli/main": "cli/main.ts", "actors/thread.worker": "actors/thread.worker.ts" }

rmSync(out, { recursive: true, force: true })
/** The library's declarations: a compiler that runs beside the bundler. */
const declarations = async (project) => {
  const tsc = spawn(process.execPath, [`${root}node_modules/typescript/bin/tsc`, "-p", project], { stdio: "inherit" })
  const [code] = await once(tsc, "exit")
  if (code !== 0) process.exit(1)
}
const declared = existsSync(source("index.ts")) && !isShort && !process.argv.includes("--no-types")
  ? declarations(`${root}tsconfig.build.json`).then(() => declarations(`${root}src/browser/tsconfig.build.json`))
  : undefined
await build({
  entryPoints: Object.fromEntries(
    Object.entries(entries).map(([name, path]) => [name, source(path)]).filter(([, path]) => existsSync(path))
  ),
  outdir: out,
  define: { SHORT_LIFETIMES: isBrief ? "\"brief\"" : String(isSoak) },
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node20",
  sourcemap: true,
  logLevel: "warning",
  plugins: [effectImports],
  // Native addons, and packages that find files beside themselves, stay outside.
  external: [
    "@infisical/quic",
    "koffi",
    "node-datachannel",
    "@libsql/client",
    "libsql",
    "@fails-components/webtransport",
    "ws"
  ],
  // CommonJS packages inside the bundle call `require` for Node's own modules.
  banner: {
    js:
      "import { createRequire as __createRequire } from \"node:module\"; const require = __createRequire(import.meta.url);"
  }
})
const forBrowsers = {
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
  plugins: [effectImports, {
    name: "no-generators", // for property tests; effect/Schema brings them along, and they are 46 kB
    setup: ({ onLoad, onResolve }) => {
      onResolve({ filter: /^fast-check$/ }, ({ path }) => ({ path, namespace: "empty" }))
      onLoad({ filter: /./, namespace: "empty" }, () => ({ contents: "export {}" }))
    }
  }]
}
// The pages: the inspector's at the admin port, and the one for people at the relay.
for (const [name, program] of [["inspector", "Inspector.tsx"], ["app", "App.tsx"]]) {
  await build({
    ...forBrowsers,
    entryPoints: [program, `${name}.css`].map((file) => ({ in: source(`${name}/${file}`), out: name })),
    outdir: `${out}/${name}`
  })
  copyFileSync(source(`${name}/index.html`), `${out}/${name}/index.html`)
}
// The client for pages: an import of Node's would not resolve here.
const browser = await build({
  ...forBrowsers,
  entryPoints: [source("browser/index.ts")],
  outfile: `${out}/browser/index.js`,
  metafile: process.argv.includes("--analyze")
})
if (browser.metafile) console.log(await analyzeMetafile(browser.metafile))
await declared
