/** What is wrong is told, at once and in words that help. */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { freePort } from "../support/Ports.ts"
import { command, PROGRAM, Program, resource, sallyport, serve, type Served, World } from "./support/Programs.ts"

const EXIT_FAILURE = 1
const EXIT_USAGE = 2
/** A line for a person: one sentence, without a stack. */
const isPlain = (err: string) => err.trim() !== "" && !/internal error|^\s+at /m.test(err)

/** Whether any user may bind port 443 here, as in many containers. */
const freeForAll = (() => {
  try {
    return Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8")) <= 443
  } catch {
    return true
  }
})()

const client = (more: string) => `role: client\nname: a\nstateDir: s\n${more}`
const relay = (more: string) =>
  `role: relay\nname: a\nstateDir: s\nlisten: {https: "127.0.0.1:1", udp: "127.0.0.1:1"}\nadvertise: {host: 127.0.0.1}\n${more}`

describe("what cannot work", () => {
  let world: World
  let server: Served
  /** Listening ports of the forwards, by the resource to which they lead. */
  let forwards: Readonly<Record<"echo" | "closed" | "secret" | "unknown", number>>

  beforeAll(async () => {
    server = await serve((socket) => void socket.pipe(socket))
    const closed = await freePort()
    forwards = {
      echo: await freePort(),
      closed: await freePort(),
      secret: await freePort(),
      unknown: await freePort()
    }
    world = await World.start({
      resources: [resource("echo", server.port), resource("closed", closed), resource("secret", server.port)],
      access: [{ clients: ["laptop"], resources: ["echo", "closed"] }],
      client: {
        forwards: Object.entries(forwards).map(([name, port]) => ({
          listen: `127.0.0.1:${port}`,
          resource: name,
          port: name === "closed" ? closed : server.port
        }))
      }
    })
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    server?.close()
  })

  /** Runs a node of its own to its end. */
  const start = (name: string, changes: object) => {
    const file = join(world.dir, `${name}.yaml`)
    const config = { role: "client", name, stateDir: `state/${name}`, socks5: "127.0.0.1:0", ...changes }
    writeFileSync(file, JSON.stringify(config))
    return sallyport(["run", "--config", file, "--log-format", "json"], { cwd: world.dir })
  }

  it("refuses a token that is invalid, foreign, used or expired", async () => {
    const short = (await world.token("client", "late", "--ttl", "10s")).trim()
    const expired = sleep(10_500)
    const good = (await world.token("client", "guest")).trim()
    const last = good.at(-1) === "A" ? "B" : "A"
    const used = readFileSync(join(world.dir, "client.token"), "utf8").trim()
    const tokens = {
      none: "hello",
      cut: good.slice(0, -4),
      changed: `${good.slice(0, -1)}${last}`,
      used
    }
    const results = await Promise.all(
      Object.entries(tokens).map(async ([why, token]) => [why, await start(`bad-${why}`, { token })] as const)
    )
    for (const [why, { code, err }] of results) {
      assert.strictEqual(code, EXIT_FAILURE, `${why}: ${err}`)
      assert.isTrue(isPlain(err), err)
      assert.match(err, /token/, why)
      assert.notInclude(err, good.slice(20), "a token is a secret")
    }
    await expired
    const late = await start("late", { token: short })
    assert.strictEqual(late.code, EXIT_FAILURE)
    assert.match(late.err, /expired/)
  })

  it("keeps a token usable that another role or name tried", async () => {
    const token = (await world.token("connector", "branch")).trim()
    const wrongRole = await start("branch", { token })
    assert.deepStrictEqual([wrongRole.code, isPlain(wrongRole.err)], [EXIT_FAILURE, true], wrongRole.err)
    assert.match(wrongRole.err, /for the connector branch.*--role client/)
    const wrongName = await start("alice", { role: "connector", socks5: undefined, token })
    assert.deepStrictEqual([wrongName.code, isPlain(wrongName.err)], [EXIT_FAILURE, true], wrongName.err)
    assert.match(wrongName.err, /write name: branch/)
    const file = join(world.dir, "branch-connector.yaml")
    writeFileSync(file, JSON.stringify({ role: "connector", name: "branch", stateDir: "state/branch", token }))
    const branch = world.launch("branch", file)
    await branch.ready()
    await branch.stop() // it would serve the resources of the other tests
  })

  it("refuses an enrolment under another key, role or name", async () => {
    const state = (name: string) => join(world.dir, "state", name)
    for (const name of ["thief", "stranger"]) mkdirSync(state(name), { recursive: true, mode: 0o700 })
    await start("nobody", { token: "x" }) // makes a key
    copyFileSync(join(state("nobody"), "node.key"), join(state("thief"), "node.key"))
    copyFileSync(join(state("client"), "enrolment.json"), join(state("thief"), "enrolment.json"))
    const thief = await start("laptop", { stateDir: "state/thief" })
    assert.deepStrictEqual([thief.code, isPlain(thief.err)], [EXIT_FAILURE, true], thief.err)
    assert.match(thief.err, /another node key/)
    for (const file of ["node.key", "enrolment.json"]) {
      copyFileSync(join(state("client"), file), join(state("stranger"), file))
    }
    const renamed = await start("other", { stateDir: "state/stranger" })
    assert.deepStrictEqual([renamed.code, isPlain(renamed.err)], [EXIT_FAILURE, true], renamed.err)
    assert.match(renamed.err, /belongs to client laptop/)
  })

  it.concurrent.each([
    ["every mistake of one file", "role: client\nname: No Name\nstateDir: s\nsocks5: 99\ncolour: red\n", [2, 4, 5]],
    ["no role", "name: a\nstateDir: s\n", []],
    ["a role that is none", "role: server\nname: a\nstateDir: s\n", [1]],
    ["no name", "role: client\nstateDir: s\n", []],
    ["no state directory", "role: client\nname: a\n", []],
    ["a key that is mistyped", "role: client\nname: a\nstateDirr: s\n", [3]],
    ["a key that is written twice", "role: client\nname: a\nname: b\nstateDir: s\n", [3]],
    ["text that is no YAML", "role: [client\nname: a\n", []],
    ["a tab", "role: client\nname: a\nstateDir: s\npath:\n\tmode: relay\n", [5]],
    ["a list", "- role: client\n", []],
    ["an empty file", "", []],
    ["a port out of range", "role: client\nname: a\nstateDir: s\nsocks5: \"127.0.0.1:70000\"\n", [4]],
    ["a path that is none", "role: client\nname: a\nstateDir: s\npath: fast\n", [4]],
    ["a carrier that is none", "role: client\nname: a\nstateDir: s\ncarrier: pigeon\n", [4]],
    ["a log level that is none", "role: client\nname: a\nstateDir: s\nlogLevel: loud\n", [4]],
    ["a forward without a port", client("forwards:\n  - {listen: \"127.0.0.1:1\", resource: a}\n"), [5]],
    [
      "two doors at one address",
      client("socks5: \"127.0.0.1:9\"\nforwards:\n  - {listen: \"127.0.0.1:9\", resource: a, port: 1}\n"),
      [6]
    ],
    ["an admin API for everybody", client("admin: \"0.0.0.0:9\"\n"), [4]],
    ["a relay that listens nowhere", "role: relay\nname: a\nstateDir: s\nadvertise: {host: 127.0.0.1}\n", []],
    ["a resource without ports", relay("resources:\n  - {name: a, address: 10.0.0.1}\n"), [7]],
    ["a port range the wrong way round", relay("resources:\n  - {name: a, address: 10.0.0.1, tcp: [\"9-1\"]}\n"), [7]],
    [
      "two resources of one name",
      relay("resources:\n  - {name: a, address: 10.0.0.1, tcp: [1]}\n  - {name: a, address: 10.0.0.2, tcp: [1]}\n"),
      [8]
    ],
    ["access to a resource that is not there", relay("access:\n  - {clients: [a], resources: [b]}\n"), [7]]
  ])("says what is wrong with a configuration, and where: %s", async (what, text, places) => {
    const file = join(world.dir, `${what.replaceAll(" ", "-")}.yaml`)
    writeFileSync(file, text)
    const { code, err } = await sallyport(["run", "--config", file], { cwd: world.dir })
    assert.deepStrictEqual([code, isPlain(err)], [EXIT_USAGE, true], err)
    assert.include(err, file)
    for (const line of places) assert.include(err, `${file}:${line}:`)
  })

  it("explains a wrong command, and exits with 2", async () => {
    const missing = await sallyport(["run", "--config", join(world.dir, "missing.yaml")])
    assert.deepStrictEqual([missing.code, isPlain(missing.err)], [EXIT_USAGE, true])
    const nonsense = await sallyport(["runn"])
    assert.deepStrictEqual([nonsense.code, isPlain(nonsense.err)], [EXIT_USAGE, true])
  })

  it("lets only one process use a state directory", async () => {
    for (const role of ["relay", "connector", "client"] as const) {
      const { code, err } = await sallyport(["run", "--config", world.file(role)], { timeoutMs: 15_000 })
      assert.deepStrictEqual([code, isPlain(err)], [EXIT_FAILURE, true], `${role}: ${err}`)
      assert.match(err, /another sallyport runs with this stateDir/, role)
      assert.isTrue(world.program(role).running)
    }
  })

  it("names the port that is taken and its configuration key", async () => {
    const token = await world.token("client", "second")
    const { code, err } = await start("second", { token, socks5: `127.0.0.1:${world.ports.socks5}` })
    assert.deepStrictEqual([code, isPlain(err)], [EXIT_FAILURE, true], err)
    assert.match(err, /socks5 cannot listen on 127\.0\.0\.1:\d+: another program listens there/)
  })

  const otherRelay = (name: string, https: string) => {
    const file = join(world.dir, `${name}.yaml`)
    const listen = { https, udp: "127.0.0.1:0" }
    const config = { role: "relay", name, stateDir: `state/${name}`, listen, advertise: { host: "127.0.0.1" } }
    writeFileSync(file, JSON.stringify(config))
    return ["run", "--config", file, "--log-format", "json"]
  }

  it("says in one line that a relay's port is taken", async () => {
    const https = `127.0.0.1:${world.ports.https}`
    const { code, err } = await sallyport(otherRelay("second-relay", https), { cwd: world.dir })
    assert.strictEqual(code, EXIT_FAILURE)
    const told = `sallyport: listen.https cannot listen on ${https}: another program listens there; stop it `
    assert.strictEqual(err.trim().split("\n").length, 1, err)
    assert.isTrue(err.startsWith(told), err)
    assert.isFalse(existsSync(join(world.dir, "state", "second-relay", "authority.key")), "no keys were made")
  })

  it("names the limit to raise if few files may open", async () => {
    const args = otherRelay("small-relay", "127.0.0.1:0")
    for (const files of [40, 64]) {
      const limited = `ulimit -n ${files}; exec "$@"`
      const { code, err } = await command(
        "sh",
        ["-c", limited, "sh", process.execPath, realpathSync(PROGRAM), ...args],
        {
          cwd: world.dir
        }
      )
      assert.strictEqual(code, EXIT_FAILURE, err)
      assert.strictEqual(err.trim().split("\n").length, 1, err)
      assert.match(err, /^sallyport: too few files .*EMFILE.*raise the limit: ulimit -n 1024/)
    }
  })

  it.skipIf(freeForAll)("says in one line that port 443 needs a right", async () => {
    const args = otherRelay("low-relay", "127.0.0.1:443")
    mkdirSync(join(world.dir, "state", "low-relay"))
    chmodSync(world.dir, 0o755)
    chmodSync(join(world.dir, "state"), 0o755)
    chmodSync(join(world.dir, "state", "low-relay"), 0o777)
    const asNobody = process.getuid?.() === 0
      ? ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", process.execPath]
      : [process.execPath]
    const [program = "", ...rest] = [...asNobody, realpathSync(PROGRAM), ...args]
    const { code, err } = await command(program, rest, { cwd: world.dir })
    assert.strictEqual(code, EXIT_FAILURE, err)
    assert.strictEqual(err.trim().split("\n").length, 1, err)
    assert.match(
      err,
      /listen\.https cannot listen on 127\.0\.0\.1:443: ports below 1024 need a right; grant CAP_NET_BIND/
    )
  })

  it("starts from any folder, by any path", async () => {
    const link = join(world.dir, "sallyport")
    symlinkSync(PROGRAM, link)
    for (const cwd of ["/", tmpdir(), world.dir]) {
      const { code, err, out } = await sallyport(["status", "--json", "--config", world.file("client")], { cwd })
      assert.strictEqual(code, 0, err)
      assert.property(JSON.parse(String(out)), "peers")
    }
    const linked = new Program(link, ["--version"], { cwd: "/" })
    assert.strictEqual((await linked.ended).code, 0, linked.lines.join("\n"))
    assert.match(linked.lines.join("\n"), /\d+\.\d+\.\d+/)
    rmSync(link)
  })

  it("resets connections at a forward, and says why", async () => {
    /** How a connection to a local port ends: `end`, or the code of the socket's error. */
    const ending = (socket: net.Socket) =>
      new Promise<string>((resolve) => {
        socket.resume()
        socket.once("end", () => resolve("end"))
        socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
      })
    const connect = (port: number) => net.connect({ host: "127.0.0.1", port, allowHalfOpen: true })
    const reasons = { closed: "refused", secret: "denied", unknown: "name_not_found" }
    for (const name of ["closed", "secret", "unknown"] as const) {
      const silent = connect(forwards[name])
      const speaking = connect(forwards[name])
      speaking.write("hello")
      assert.deepStrictEqual([await ending(silent), await ending(speaking)], ["ECONNRESET", "ECONNRESET"], name)
    }
    const open = connect(forwards.echo)
    open.write("hello")
    await new Promise((resolve) => open.once("data", resolve))
    const openEnds = ending(open)
    world.program("connector").kill("SIGKILL")
    await world.program("connector").ended
    assert.deepStrictEqual([await ending(connect(forwards.echo)), await openEnds], ["ECONNRESET", "ECONNRESET"])

    const shown = String((await world.command("client", "status")).out)
    const metrics = String(await world.ask("client", "/metrics"))
    const log = world.program("client").lines.filter((line) => line.includes("flow refused"))
    // A relay that has just started does not say yet that the connector left, and the Open waits for its answer.
    for (const [name, code] of Object.entries({ ...reasons, echo: "(?:unreachable|timed_out)" })) {
      const forward = `127.0.0.1:${forwards[name as keyof typeof forwards]}`
      assert.match(shown, new RegExp(`the forward ${forward} to ${name}:\\d+ reset .*: ${code}`))
      assert.match(metrics, new RegExp(`^sallyport_forward_resets_total\\{.*"${name}:.*code="${code}"\\} [12]$`, "m"))
      assert.isTrue(
        log.some((line) => line.includes(`"forward":"${forward}"`) && new RegExp(`"${code}"`).test(line)),
        name
      )
    }
  })
})
