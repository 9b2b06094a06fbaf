import { assert, describe, it } from "@effect/vitest"
import { type Console, Duration, Effect, Layer } from "effect"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import { Backend, type NewToken, type NodeRow } from "../../src/cli/Backend.ts"
import * as Cli from "../../src/cli/Cli.ts"
import { failure } from "../../src/cli/CliError.ts"
import * as Commands from "../../src/cli/Commands.ts"
import { bytes, table } from "../../src/cli/show/Table.ts"
import * as NatReport from "../../src/protocol/nat/NatReport.ts"
import * as AdminServer from "../../src/services/admin/AdminServer.ts"
import * as Config from "../../src/services/config/Config.ts"

const dir = mkdtempSync(join(tmpdir(), "cli-"))
afterAll(() => rmSync(dir, { recursive: true }))

const relayFile = join(dir, "relay.yaml")
writeFileSync(
  relayFile,
  "role: relay\nname: r\nstateDir: r\nlisten: {https: \"0.0.0.0:443\", udp: \"0.0.0.0:3478\"}\nadvertise: {host: relay.example.com}\n"
)
const clientFile = join(dir, "client.yaml")
writeFileSync(clientFile, "role: client\nname: alice\nstateDir: c\n")

const NODES: ReadonlyArray<NodeRow> = [
  { name: "alice", role: "client", network: null, nodeKey: "k1", enrolledAt: "2026-01-02T03:04:05Z" },
  { name: "office", role: "connector", network: "hq", nodeKey: "k2", enrolledAt: "2026-01-02T03:04:06Z" }
]

const IPV4: NatReport.NatReport = {
  server: { host: "192.0.2.1", port: 3478 },
  udp: "works",
  rttMs: 12.34,
  mapped: { host: "198.51.100.7", port: 40_123 },
  publicHosts: ["198.51.100.7"],
  translated: true,
  mapping: { value: "endpoint-independent", reason: null },
  filtering: { value: "unknown", reason: "the server has no second address" },
  hairpin: { value: "fails", reason: null },
  ports: { value: "sequential", delta: 2, samples: 8, reason: null }
}
const REPORT = {
  ...NatReport.make("relay.example.com:3478", [IPV4], {
    gateway: "10.0.0.1",
    protocols: ["pcp", "upnp"],
    external: "198.51.100.7"
  }),
  lifetime: { heldMs: 28_500, lostMs: 59_260, reason: null }
}

/** Runs one command line; the backend only writes down what it was asked. */
const cli = (args: ReadonlyArray<string>, colours = false) =>
  Effect.gen(function*() {
    const stdout: Array<string> = []
    const stderr: Array<string> = []
    const asked: Array<unknown> = []
    const real = yield* Effect.console
    const captured: Console.Console = {
      ...real,
      log: (...values) => Effect.sync(() => void stdout.push(values.join(" "))),
      error: (...values) => Effect.sync(() => void stderr.push(values.join(" ")))
    }
    const backend = Layer.succeed(Backend, {
      run: (config, options) => Effect.sync(() => void asked.push({ role: config.role, ...options })),
      demo: failure("no room for a demo; free some"),
      makeRelayKeys: (stateDir) => Effect.sync(() => void asked.push(stateDir)),
      createToken: (_, token: NewToken) =>
        Effect.sync(() => {
          asked.push({ ...token, ttl: Duration.toSeconds(token.ttl) })
          return "the-token"
        }),
      netcheck: (server) =>
        Effect.sync(() => {
          asked.push(server)
          return REPORT
        }),
      listNodes: () => Effect.succeed(NODES),
      removeNode: (_, name) => name === "bug" ? Effect.die(new Error("boom")) : Effect.succeed(name === "alice")
    })
    const code = yield* Cli.main(args, { colours }).pipe(Effect.provide(backend), Effect.withConsole(captured))
    return { code, stdout: stdout.join("\n"), stderr: stderr.join("\n"), asked }
  })

describe("usage", () => {
  const USAGE: ReadonlyArray<readonly [args: string, stderr: string]> = [
    [
      "bogus",
      "Invalid subcommand for sallyport - use one of 'run', 'relay', 'token', 'node', 'status', 'ping', 'path', 'trace', 'actors', 'doctor', 'drain', 'network', 'netcheck', 'bugreport', 'demo'; see sallyport --help"
    ],
    ["run", "Expected to find option: '--config'; see sallyport --help"],
    ["run --confg x", "The flag '--confg' is not recognized. Did you mean '--config'? See sallyport --help"],
    [
      `run --config ${relayFile} --log-format xml`,
      "--log-format xml is unknown; give one of json, pretty; see sallyport --help"
    ],
    [`node list --config ${relayFile} more`, "Received unknown argument: 'more'; see sallyport --help"],
    [
      `token create --config ${relayFile} --role boss --name a`,
      "--role boss is unknown; give one of client, connector, relay; see sallyport --help"
    ],
    [
      `token create --config ${relayFile} --role client --name A!`,
      "--name A! is no node name; use letters, digits, -, _ and dots between them, such as office-1, db_1 or web.corp"
    ],
    [
      `token create --config ${relayFile} --role client --name a --network n`,
      "--network is for connectors only; leave it out"
    ],
    [
      `token create --config ${relayFile} --role client --name a --ttl 31d`,
      "--ttl 31d is no time from 10s to 30d; write for example --ttl 1h (units: s, m, h, d)"
    ],
    [
      `token create --config ${clientFile} --role client --name a`,
      `${clientFile} is the configuration of a client; give this command the relay's, on the relay's machine`
    ],
    [
      `drain --config ${clientFile}`,
      `${clientFile} is the configuration of a client; drain needs that of a connector, which alone serves flows`
    ],
    ["netcheck", "give either --config FILE of a node that runs here, or --relay HOST:PORT"],
    [
      `netcheck --config ${clientFile} --relay a:1`,
      "give either --config FILE of a node that runs here, or --relay HOST:PORT"
    ],
    [
      "netcheck --relay relay.example.com",
      "--relay relay.example.com, which has no port; write for example --relay relay.example.com:3478"
    ],
    [
      `netcheck --config ${relayFile}`,
      `${relayFile} is the configuration file of a relay; netcheck needs that of a node, or --relay HOST:PORT`
    ],
    [
      `relay init --dir ${dir}/x --host https://a`,
      "--host https://a, which is a URL; give the public host name or IP address, such as relay.example.com"
    ],
    [
      `relay init --dir ${dir}/x --host a --udp-port 70000`,
      "--udp-port 70000 is no port; give a number from 1 to 65535; see sallyport --help"
    ]
  ]
  for (const [args, stderr] of USAGE) {
    it.effect(`exits 2 with one line for: ${args.replaceAll(dir, "DIR")}`, () =>
      Effect.gen(function*() {
        const result = yield* cli(args.split(" "))
        assert.deepStrictEqual(result, { code: 2, stdout: "", stderr: `sallyport: ${stderr}`, asked: [] })
      }))
  }

  it.effect("exits 2 with places for a broken configuration", () =>
    Effect.gen(function*() {
      const file = join(dir, "broken.yaml")
      writeFileSync(file, "role: client\nname: a b\nstateDir: s\nsock5: x\n")
      const { code, stderr } = yield* cli(["run", "--config", file])
      assert.strictEqual(code, 2)
      assert.deepStrictEqual(stderr.split("\n").map((line) => line.slice(0, file.length + 12)), [
        `${file}:2:7 name: f`,
        `${file}:4:1 sock5: `
      ])
    }))

  it.effect("prints version and help, in colour only on a terminal", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* cli(["--version"]), { code: 0, stdout: "0.1.0\n", stderr: "", asked: [] })
      const plain = yield* cli(["--help"])
      assert.strictEqual(plain.code, 0)
      assert.include(plain.stdout, "token create (-c, --config RELAY.yaml)")
      assert.notInclude(plain.stdout, "\u001B")
      assert.include((yield* cli(["--help"], true)).stdout, "\u001B[")
    }))
})

describe("commands", () => {
  it.effect("only run and demo end by a signal", () =>
    Effect.gen(function*() {
      const help = (yield* cli(["--help"])).stdout
      const names = new Set([...help.matchAll(/^ {2}- ([a-z]+)/gm)].map(([, name = ""]) => name))
      assert.isAbove(names.size, 10)
      for (const name of names) {
        assert.strictEqual(Commands.endsBySignal([name, "run"]), name === "run" || name === "demo", name)
      }
      assert.isTrue(Commands.endsBySignal(["--log-level", "debug", "run", "--config", "status"]))
      assert.isFalse(Commands.endsBySignal(["--help"]))
    }))

  it.effect("run hands the configuration over", () =>
    Effect.gen(function*() {
      const { asked, code } = yield* cli(["run", "--config", clientFile, "--log-format", "json"])
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(asked, [{ role: "client", newIdentity: false, logFormat: "json", configFile: clientFile }])
    }))

  it.effect("relay init makes a valid configuration, and overwrites nothing", () =>
    Effect.gen(function*() {
      const made = join(dir, "new")
      const args = ["relay", "init", "--dir", made, "--host", "relay.example.com", "--https-port", "8443"]
      const first = yield* cli(args)
      assert.strictEqual(first.code, 0)
      assert.deepStrictEqual(first.asked, [join(made, "state")])
      assert.include(first.stdout, `sallyport run --config ${made}/relay.yaml`)
      const config = yield* Config.load(join(made, "relay.yaml"))
      assert(config.role === "relay")
      assert.deepStrictEqual(config.advertise, { host: "relay.example.com", https: 8443, udp: 3478 })
      const before = readFileSync(join(made, "relay.yaml"), "utf8")
      const second = yield* cli([...args.slice(0, 5), "other.example"])
      assert.strictEqual(second.code, 1)
      assert.strictEqual(
        second.stderr,
        `sallyport: ${made}/relay.yaml exists and nothing was changed; choose another --dir, or go on with: sallyport run --config ${made}/relay.yaml`
      )
      assert.deepStrictEqual(second.asked, [])
      assert.strictEqual(readFileSync(join(made, "relay.yaml"), "utf8"), before)
      assert.deepStrictEqual(readdirSync(made), ["relay.yaml"])
    }))

  it.effect("relay init accepts only an empty state folder", () =>
    Effect.gen(function*() {
      const state = join(dir, "elsewhere")
      mkdirSync(state)
      const args = (to: string) => ["relay", "init", "--dir", to, "--host", "relay.example.com", "--state-dir", state]
      const first = yield* cli(args(join(dir, "apart")))
      assert.strictEqual(first.code, 0)
      assert.deepStrictEqual(first.asked, [state])
      assert.strictEqual((yield* Config.load(join(dir, "apart", "relay.yaml"))).stateDir, state)
      writeFileSync(join(state, "authority.key"), "")
      const second = yield* cli(args(join(dir, "apart-2")))
      assert.strictEqual(second.code, 1)
      assert.include(second.stderr, `${state} exists and nothing was changed`)
    }))

  it.effect("token create prints the token alone", () =>
    Effect.gen(function*() {
      const create = (more: string) =>
        cli(["token", "create", "--config", relayFile, "--name", "a", ...more.split(" ")])
      const client = yield* create("--role client")
      assert.deepStrictEqual(client, {
        code: 0,
        stdout: "the-token",
        stderr: "",
        asked: [{ role: "client", name: "a", network: null, ttl: 3600 }]
      })
      const connector = yield* create("--role connector --ttl 7d")
      assert.deepStrictEqual(connector.asked, [{ role: "connector", name: "a", network: "default", ttl: 604_800 }])
      const named = yield* create("--role connector --network hq --ttl 90s")
      assert.deepStrictEqual(named.asked, [{ role: "connector", name: "a", network: "hq", ttl: 90 }])
    }))

  it.effect("node list prints a table, or JSON", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        (yield* cli(["node", "list", "--config", relayFile])).stdout,
        "NAME    ROLE       NETWORK  ENROLLED              KEY\n" +
          "alice   client     -        2026-01-02T03:04:05Z  k1\n" +
          "office  connector  hq       2026-01-02T03:04:06Z  k2"
      )
      const { stdout } = yield* cli(["node", "list", "--config", relayFile, "--json"])
      assert.deepStrictEqual(JSON.parse(stdout), { nodes: NODES })
    }))

  it.effect("node remove takes its name before or after the options", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* cli(["node", "remove", "--config", relayFile, "alice"])).stdout, "Removed alice.")
      assert.strictEqual(
        (yield* cli(["node", "remove", "alice", "--config", relayFile, "--json"])).stdout,
        "{\"removed\":\"alice\"}"
      )
      const unknown = yield* cli(["node", "remove", "bob", "--config", relayFile])
      assert.deepStrictEqual(unknown, {
        code: 1,
        stdout: "",
        stderr: `sallyport: no node is named bob; see: sallyport node list --config ${relayFile}`,
        asked: []
      })
    }))

  it.effect("reports a failure or a bug in one line", () =>
    Effect.gen(function*() {
      const failed = yield* cli(["demo"])
      assert.deepStrictEqual([failed.code, failed.stderr], [1, "sallyport: no room for a demo; free some"])
      const bug = yield* cli(["node", "remove", "bug", "--config", relayFile])
      assert.deepStrictEqual([bug.code, bug.stderr], [1, "sallyport: internal error: boom; please report it"])
    }))
})

describe("mistakes", () => {
  it.effect("refuses a network without resources", () =>
    Effect.gen(function*() {
      const file = join(dir, "networks.yaml")
      const resources = "resources: [{name: web, network: office, address: 10.0.0.5, tcp: [80]}]\n"
      writeFileSync(file, readFileSync(relayFile, "utf8") + resources)
      const create = (network: string) =>
        cli(["token", "create", "--config", file, "--role", "connector", "--name", "a", "--network", network])
      const wrong = yield* create("ofice")
      assert.deepStrictEqual([wrong.code, wrong.asked], [2, []])
      assert.include(wrong.stderr, `--network ofice: no resource in ${file} is in that network; it has office; correct`)
      assert.strictEqual((yield* create("office")).stdout, "the-token")
    }))

  it.effect("says in one line that relay init lacks permission", () =>
    Effect.gen(function*() {
      const locked = join(dir, "locked")
      mkdirSync(locked, { mode: 0o500 })
      const isRoot = process.getuid?.() === 0 // who may write everywhere
      if (isRoot) process.seteuid?.(65_534)
      const { asked, code, stderr } = yield* cli([
        "relay",
        "init",
        "--dir",
        join(locked, "relay"),
        "--host",
        "r.example"
      ])
        .pipe(Effect.ensuring(Effect.sync(() => isRoot && process.seteuid?.(0))))
      assert.deepStrictEqual([code, asked], [1, []])
      assert.include(
        stderr,
        `sallyport: cannot make ${join(locked, "relay", "relay.yaml")}: no permission to write there (E`
      )
      assert.include(stderr, "run with sudo, or choose another --dir")
    }))
})

describe("status", () => {
  const PEER = {
    name: "office",
    path: "direct",
    rttMs: 12.34,
    reason: "lowest latency",
    flows: 3,
    bytesIn: 1_234_567,
    bytesOut: 10
  }

  const serve = (peers: ReadonlyArray<unknown>) =>
    Effect.gen(function*() {
      const config = yield* Config.load(clientFile)
      yield* AdminServer.make({
        listen: config.admin,
        routes: { "GET /v1/status": () => Effect.succeed({ peers, extra: 1 }) }
      })
    })

  it.scopedLive("prints a table, or JSON", () =>
    Effect.gen(function*() {
      yield* serve([PEER, { ...PEER, name: "hq", path: null, rttMs: null, reason: "no path yet" }])
      const { code, stdout } = yield* cli(["status", "--config", clientFile])
      assert.strictEqual(code, 0)
      assert.strictEqual(
        stdout,
        "PEER    PATH    RTT      FLOWS  IN      OUT   WHY THIS PATH\n" +
          "office  direct  12.3 ms  3      1.2 MB  10 B  lowest latency\n" +
          "hq      -       -        3      1.2 MB  10 B  no path yet"
      )
      const json = yield* cli(["status", "--config", clientFile, "--json"])
      assert.deepStrictEqual(JSON.parse(json.stdout).peers[0], PEER)
    }))

  it.scopedLive("shows who it is, its relay and its resources", () =>
    Effect.gen(function*() {
      const config = yield* Config.load(clientFile)
      const self = { role: "client", name: "alice", network: null, relay: "relay.example.com:443" }
      const signaling = { state: "up", carrier: "websocket", relay: "relay.example.com:443", problem: "" }
      const leg = { kind: "relay-udp", reason: "UDP works" }
      const resources = [{
        name: "intranet",
        address: "10.0.0.5",
        tcp: [{ from: 80, to: 80 }, { from: 8000, to: 8100 }]
      }]
      const told = { self, peers: [], signaling, leg, restartNeeded: ["path"] }
      yield* AdminServer.make({
        listen: config.admin,
        routes: { "GET /v1/status": () => Effect.succeed(told), "GET /v1/resources": () => Effect.succeed(resources) }
      })
      assert.strictEqual(
        (yield* cli(["status", "--config", clientFile])).stdout,
        "client alice, relay relay.example.com:443 is reached by websocket, packets by relay-udp\n" +
          "may use: intranet (tcp 80, 8000-8100)\n" +
          "restart sallyport for the changed keys: path\n\nNo peers now."
      )
      const json = yield* cli(["status", "--config", clientFile, "--json"])
      assert.deepStrictEqual(JSON.parse(json.stdout), { ...told, resources })
    }))

  it.scopedLive("names the relay if it is not the node's own", () =>
    Effect.gen(function*() {
      yield* serve([{ ...PEER, path: "relay-udp", relay: "relay-2" }])
      const { stdout } = yield* cli(["status", "--config", clientFile])
      assert.include(stdout, "office  relay-udp relay-2  12.3 ms")
    }))

  it.scopedLive("exits 0 without peers", () =>
    Effect.gen(function*() {
      yield* serve([])
      assert.deepStrictEqual(yield* cli(["status", "--config", clientFile]), {
        code: 0,
        stdout: "No peers now.",
        stderr: "",
        asked: []
      })
      assert.strictEqual(
        (yield* cli(["status", "--config", clientFile, "--json"])).stdout,
        "{\"peers\":[],\"extra\":1}"
      )
    }))

  it.effect("exits 1 and names the start command when nothing runs", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* cli(["status", "--config", clientFile, "--json"])
      assert.strictEqual(code, 1)
      assert.strictEqual(stdout, "")
      assert.strictEqual(
        stderr,
        `sallyport: sallyport is not running (nothing answers on ${dir}/c/admin.sock); start it with: sallyport run --config ${clientFile}`
      )
    }))
})

describe("drain", () => {
  const file = join(dir, "connector.yaml")
  writeFileSync(file, "role: connector\nname: office\nstateDir: d\n")

  /** A connector that answers each look with the next state, and the last one again and again. */
  const serve = (...states: ReadonlyArray<{ readonly draining: boolean; readonly flows: number }>) =>
    Effect.gen(function*() {
      const { admin } = yield* Config.load(file)
      const asked: Array<unknown> = []
      let looks = 0
      const state = () => ({ sessions: 1, ...states[Math.min(looks++, states.length - 1)] })
      const routes: AdminServer.Routes = {
        "POST /v1/drain": (body) => Effect.sync(() => (asked.push(body), state())),
        "GET /v1/drain": () => Effect.sync(() => (asked.push("look"), state()))
      }
      yield* AdminServer.make({ listen: admin, routes })
      return asked
    })
  const draining = (flows: number) => ({ draining: true, flows })

  it.scopedLive("waits until the last flow has ended", () =>
    Effect.gen(function*() {
      const asked = yield* serve(draining(2), draining(1), draining(0))
      const { code, stdout } = yield* cli(["drain", "--config", file])
      assert.deepStrictEqual([code, stdout.split("\n")], [0, [
        `office takes no new flows until: sallyport drain --cancel --config ${file}`,
        "2 flows are open",
        "1 flow is open",
        "no flow is open"
      ]])
      assert.deepStrictEqual(asked, [{ drain: true }, "look", "look"])
    }))

  it.scopedLive("looks again before it believes that no flow is open", () =>
    Effect.gen(function*() {
      yield* serve(draining(0), draining(1), draining(0))
      const { code, stdout } = yield* cli(["drain", "--config", file, "--json"])
      assert.deepStrictEqual([code, JSON.parse(stdout)], [0, { ...draining(0), sessions: 1 }])
    }))

  it.scopedLive("fails if another command cancels it", () =>
    Effect.gen(function*() {
      yield* serve(draining(2), { draining: false, flows: 2 })
      const { code, stderr } = yield* cli(["drain", "--config", file])
      const expected = [1, "sallyport: the drain was cancelled by another command (2 flows are open)"]
      assert.deepStrictEqual([code, stderr], expected)
    }))

  it.scopedLive("returns at once with --no-wait and --cancel", () =>
    Effect.gen(function*() {
      const asked = yield* serve(draining(2))
      assert.strictEqual((yield* cli(["drain", "--config", file, "--no-wait"])).code, 0)
      assert.strictEqual((yield* cli(["drain", "--config", file, "--cancel"])).stdout, "office takes new flows.")
      assert.deepStrictEqual(asked, [{ drain: true }, { drain: false }])
    }))
})

describe("netcheck", () => {
  const TABLE = [
    "relay.example.com:3478  IPV4",
    "UDP                     works",
    "Round trip              12.3 ms",
    "Public address          198.51.100.7:40123",
    "Translated              yes",
    "Mapping                 endpoint-independent",
    "Filtering               unknown",
    "Hairpin                 fails",
    "Ports                   sequential, +2",
    "Port mapping: pcp, upnp, at 198.51.100.7",
    "Idle mappings: kept for 28.5 s, lost within 59.3 s",
    "  IPv6: no server was reached",
    "  IPv4 filtering is unknown: the server has no second address",
    "Direct paths: likely. One public port for all peers; only peers whose own port changes with each destination need the relay."
  ]

  it.effect("asks a relay without a running node", () =>
    Effect.gen(function*() {
      const { asked, code, stdout } = yield* cli(["netcheck", "--relay", "relay.example.com:3478"])
      assert.strictEqual(code, 0)
      assert.deepStrictEqual(stdout.split("\n"), TABLE)
      assert.deepStrictEqual(asked, [{ host: "relay.example.com", port: 3478 }])
      const json = yield* cli(["netcheck", "--relay", "relay.example.com:3478", "--json"])
      assert.deepStrictEqual(JSON.parse(json.stdout), REPORT)
    }))

  it.scopedLive("asks the running node, or says what to do", () =>
    Effect.gen(function*() {
      const none = yield* cli(["netcheck", "--config", clientFile])
      assert.strictEqual(none.code, 1)
      assert.include(none.stderr, "or ask without it: sallyport netcheck --relay HOST:PORT")
      const { admin } = yield* Config.load(clientFile)
      yield* AdminServer.make({ listen: admin, routes: { "GET /v1/netcheck": () => Effect.succeed(REPORT) } })
      const { asked, stdout } = yield* cli(["netcheck", "--config", clientFile])
      assert.deepStrictEqual(stdout.split("\n"), TABLE)
      assert.deepStrictEqual(asked, [])
    }))
})

describe("tables", () => {
  it("are as wide as their cells", () => {
    assert.strictEqual(table([["a", "bb"], ["ccc", ""]]), "a    bb\nccc")
  })
  it("count bytes in powers of 1,000 with three digits", () => {
    assert.deepStrictEqual([0, 999, 1000, 99_949, 99_950, 999_500, 1e9, 1e18].map(bytes), [
      "0 B",
      "999 B",
      "1.0 kB",
      "99.9 kB",
      "100 kB",
      "1.0 MB",
      "1.0 GB",
      "1000000 TB"
    ])
  })
})
