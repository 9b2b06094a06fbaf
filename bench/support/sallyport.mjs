/** Sallyport's three programs as a benchmark runs them: `bin/sallyport` with configuration files of its own. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import net from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { here, output } from "./processes.mjs"

/** The command line's program. */
export const PROGRAM = fileURLToPath(new URL("../../bin/sallyport", import.meta.url))
const BOOT_MS = 180_000
/** The name under which the traffic's server is reached. */
export const RESOURCE = "source"

/** The configuration file of a node, named after it. JSON is YAML, too. */
export const writeConfig = (dir, name, config) => {
  const file = join(dir, `${name}.json`)
  writeFileSync(file, JSON.stringify({ name, role: name, stateDir: name, ...config }))
  return file
}

/** A token of the relay whose configuration is `config`; `place` is where that runs. */
export const createToken = async (place, config, role, name = role) => {
  const network = role === "connector" ? ["--network", "default"] : []
  const args = ["token", "create", "--config", config, "--role", role, "--name", name, ...network]
  return (await output(place(process.execPath, [PROGRAM, ...args]))).trim()
}

/** One node, when it is ready. `nodeArgs` are node's own, as `--cpu-prof`; `onLine` is told what it logs. */
export const run = ({ start }, place, name, config, { env = {}, nodeArgs = [], onLine } = {}) =>
  new Promise((resolve, reject) => {
    const since = performance.now()
    // A relay with a directory makes its keys only if it is told to.
    const { join: joins, role } = JSON.parse(readFileSync(config, "utf8"))
    const newIdentity = role === "relay" && joins === undefined ? ["--new-identity"] : []
    const args = [...nodeArgs, PROGRAM, "run", "--config", config, "--log-format", "json", ...newIdentity]
    const stdio = ["ignore", "pipe", onLine === undefined ? "inherit" : "pipe"] // logs go to stderr
    const child = start(place, process.execPath, args, { env: { ...process.env, ...env }, stdio })
    if (onLine !== undefined) createInterface({ input: child.stderr }).on("line", (line) => onLine(name, line))
    const late = setTimeout(() => reject(new Error(`${name} did not get ready`)), BOOT_MS)
    child.once("error", reject)
    child.once("exit", (code) => reject(new Error(`${name} ended with ${code}`)))
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (!line.includes("\"event\":\"ready\"")) return
      clearTimeout(late)
      resolve({
        child,
        pid: child.pid,
        readyMs: Math.round(performance.now() - since),
        listen: JSON.parse(line).listen
      })
    })
  })

/**
 * Relay, connector and client. `places` says where each runs, `relay` is {host, https, udp}, `port` the traffic's server on
 * the connector's host (`ports`: others there), `path` "auto" or "relay", and `config` what else a role is to have.
 */
export async function startSallyport(
  processes,
  { config = () => ({}), env = {}, logLevel = "warn", name, nodeArgs, onLine, path, places, port, ports = [], relay }
) {
  const dir = join(processes.dir, name)
  mkdirSync(dir)
  const started = {}
  const start = async (role, own) => {
    const file = writeConfig(dir, role, { logLevel, ...own, ...config(role) })
    started[role] = await run(processes, places?.[role] ?? here, role, file, { env, nodeArgs, onLine })
  }
  await start("relay", {
    listen: { https: `${relay.host}:${relay.https}`, udp: `${relay.host}:${relay.udp}` },
    advertise: { host: relay.host },
    resources: [{ name: RESOURCE, address: "127.0.0.1", tcp: [port, ...ports], allowLoopback: true }],
    access: [{ clients: ["*"], resources: ["*"] }]
  })
  const token = (role) => createToken(places?.relay ?? here, join(dir, "relay.json"), role)
  await start("connector", { path, token: await token("connector") })
  await start("client", { path, token: await token("client"), socks5: "127.0.0.1:0" })
  const status = (places?.client ?? here)(process.execPath, [
    PROGRAM,
    "status",
    "--json",
    "--config",
    join(dir, "client.json")
  ])
  return {
    roles: started,
    pids: Object.values(started).map(({ pid }) => pid),
    target: { host: RESOURCE, port, socks: Number(started.client.listen.socks5.split(":").at(-1)) },
    /** The path that the session uses now; undefined: there is no session. */
    path: async () => JSON.parse(await output(status)).peers[0]?.path
  }
}

export const freePort = () =>
  new Promise((resolve) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
