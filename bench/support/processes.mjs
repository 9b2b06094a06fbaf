/** The processes that a benchmark starts, each on a host of a lab or on this one, and the certainty that all of them end. */
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { cpus, loadavg, tmpdir } from "node:os"
import { join } from "node:path"

const STOP_MS = 8000
const CLOCK_TICKS = 100 // USER_HZ: what /proc counts processor time in, on every Linux of today

/** @typedef {(command: string, args: ReadonlyArray<string>) => readonly [string, ReadonlyArray<string>]} Place where a command runs */

/** @type {Place} */
export const here = (command, args) => [command, args]

/** What has been started is stopped, and all else undone, when `body` ends, fails, or the benchmark is interrupted. */
export async function withProcesses(body) {
  const dir = mkdtempSync(join(tmpdir(), "sallyport-bench-"))
  const children = []
  const undo = []
  let ending = null
  const endAll = async () => {
    await Promise.all(children.map(stop))
    const undone = await Promise.allSettled(undo.map((one) => one()))
    rmSync(dir, { recursive: true, force: true })
    for (const { reason } of undone) if (reason !== undefined) process.stderr.write(`${reason}\n`)
  }
  const end = () => ending ??= endAll()
  const onSignal = (signal) => void end().then(() => process.exit(signal === "SIGINT" ? 130 : 143))
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, onSignal) // on: a second one must not end us half-way
  try {
    return await body({
      dir,
      /** Something else to be undone. */
      onEnd: (undone) => void undo.push(undone),
      /** @param {Place} place */
      start: (place, command, args, options = {}) => {
        if (ending !== null) throw new Error("interrupted")
        const child = spawn(...place(command, args), { stdio: ["ignore", "pipe", "inherit"], ...options })
        children.push(child)
        return child
      }
    })
  } finally {
    await end()
    for (const signal of ["SIGINT", "SIGTERM"]) process.off(signal, onSignal)
  }
}

const stop = (child) =>
  new Promise((resolve) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return resolve()
    const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS)
    child.once("exit", () => {
      clearTimeout(late)
      resolve()
    })
    child.kill("SIGTERM")
  })

/** Runs a command to its end; what it printed. */
export const output = ([command, args], options = {}) =>
  new Promise((resolve, reject) => {
    const { input = "", ...rest } = options
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], ...rest })
    let out = ""
    let problem = ""
    child.stdout.on("data", (bytes) => (out += bytes))
    child.stderr.on("data", (bytes) => (problem += bytes))
    child.stdin.on("error", () => {})
    child.once("error", reject)
    child.once("close", (code) =>
      code === 0
        ? resolve(out)
        : reject(new Error(`${command} ${args.join(" ")}: ${problem.trim() || `code ${code}`}`)))
    child.stdin.end(input)
  })

/** Processor time that a process has used so far, all its threads together, seconds. */
export const cpuSeconds = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ")
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS // utime and stime, counted from "state"
}

/** Null: the process has ended. */
export const rssMiB = (pid) => {
  try {
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024)
  } catch {
    return null
  }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Asks until the answer is `wanted`. */
export async function until(ask, wanted, what, tries = 60) {
  for (let i = 0; i < tries; i++) {
    if ((await ask()) === wanted) return
    await sleep(250)
  }
  throw new Error(`${what}: never ${wanted}`)
}

/** The median. */
export const p50 = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]

export const rounded = (value, digits = 2) => Number(value.toFixed(digits))

/** Where and when figures were taken. */
export const surroundings = () => ({ node: process.version, cores: cpus().length, load: rounded(loadavg()[0]) })
