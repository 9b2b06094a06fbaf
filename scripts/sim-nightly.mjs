// The simulation with a seed of its own, for as long as a night: node scripts/sim-nightly.mjs [--machines 300000] [--nodes 10000] [--seed N]
// Prints the seed first. A failure names its scenario: keep it in test/sim/kept-machines.json or kept-nodes.json.
import { spawnSync } from "node:child_process"
import { randomInt } from "node:crypto"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"

const { values } = parseArgs({
  options: {
    machines: { type: "string", default: "300000" },
    nodes: { type: "string", default: "10000" },
    seed: { type: "string", default: String(randomInt(2 ** 31)) }
  }
})
process.stdout.write(`seed ${values.seed}\n`)
const { status } = spawnSync("npx", [
  "vitest",
  "run",
  "--project",
  "unit",
  "test/sim/Machines.test.ts",
  "test/sim/Nodes.test.ts"
], {
  cwd: fileURLToPath(new URL("..", import.meta.url)),
  stdio: "inherit",
  env: {
    ...process.env,
    SALLYPORT_SIM_RUNS: values.machines,
    SALLYPORT_SIM_NODE_RUNS: values.nodes,
    SALLYPORT_SIM_SEED: values.seed
  }
})
process.exit(status ?? 1)
