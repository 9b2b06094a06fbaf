// Runs npm scripts, two at a time, the first ones first: node scripts/two-at-a-time.mjs check:types check:lint ...
// Each one's words are shown together when it has ended. All are run, whatever fails; then this fails, too.
import { spawn } from "node:child_process"
import { once } from "node:events"

const waiting = process.argv.slice(2)
const failed = []

const run = async (script) => {
  const began = performance.now()
  const child = spawn("npm", ["run", "--silent", script], { stdio: ["ignore", "pipe", "pipe"] })
  const words = []
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => words.push(bytes))
  const [code] = await once(child, "close")
  const seconds = ((performance.now() - began) / 1_000).toFixed(1)
  process.stdout.write(`${script}: ${code === 0 ? "ok" : "FAILED"}, ${seconds} s\n${Buffer.concat(words)}`)
  if (code !== 0) failed.push(script)
}
const lane = async () => {
  for (let script = waiting.shift(); script !== undefined; script = waiting.shift()) await run(script)
}
await Promise.all([lane(), lane()])
if (failed.length > 0) {
  process.stderr.write(`FAILED: ${failed.join(", ")}\n`)
  process.exit(1)
}
