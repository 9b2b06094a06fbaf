import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted, SchemaAST } from "effect"
import * as fc from "fast-check"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { afterAll } from "vitest"
import * as Wiring from "../../src/actors/Wiring.ts"
import * as RelayTemplate from "../../src/cli/RelayTemplate.ts"
import * as Config from "../../src/services/config/Config.ts"
import { ACTORS, Client, Connector, Forwarder, Relay } from "../../src/services/config/ConfigSchema.ts"
import { runs } from "../support/Runs.ts"

const dir = mkdtempSync(join(tmpdir(), "config-"))
afterAll(() => rmSync(dir, { recursive: true }))

let files = 0
const write = (content: string | Uint8Array): string => {
  const file = join(dir, `${files++}.yaml`)
  writeFileSync(file, content)
  return file
}

const problem = (content: string | Uint8Array) => {
  const file = write(content)
  return Effect.map(Effect.flip(Config.load(file)), ({ message }) => message.replaceAll(file, "FILE"))
}

const RELAY = {
  role: "relay",
  name: "r",
  stateDir: "state",
  listen: { https: "[::]:443", udp: "0.0.0.0:3478" },
  advertise: { host: "relay.example.com", https: 8443 }
}
const CLIENT = { role: "client", name: "alice", stateDir: "/var/lib/alice" }

const decode = (value: unknown) => Config.decode(value, { baseDir: "/etc/sallyport" })
const refused = (value: unknown) =>
  Effect.map(Effect.flip(decode(value)), ({ issues }) => issues.map(({ key, message }) => `${key}: ${message}`))

/** Every key that a file may have, at any depth. Names of threads are free, so they are not here. */
const keysIn = (ast: SchemaAST.AST): ReadonlyArray<string> => {
  if (SchemaAST.isTransformation(ast)) return keysIn(ast.from)
  if (SchemaAST.isRefinement(ast)) return keysIn(ast.from)
  if (SchemaAST.isUnion(ast)) return ast.types.flatMap(keysIn)
  if (SchemaAST.isTupleType(ast)) return [...ast.elements, ...ast.rest].flatMap(({ type }) => keysIn(type))
  return SchemaAST.isTypeLiteral(ast)
    ? ast.propertySignatures.flatMap(({ name, type }) => [String(name), ...keysIn(type)])
    : []
}

describe("values", () => {
  it.effect("settles paths, defaults and port ranges of a relay", () =>
    Effect.gen(function*() {
      const config = yield* decode({
        ...RELAY,
        tls: { cert: "tls/cert.pem", key: "/keys/key.pem" },
        resources: [{ name: "web", address: "10.0.0.5", tcp: [80, "8000-8100", " 90 - 91 "] }],
        access: [{ clients: ["*"], resources: ["web"] }]
      })
      assert.deepStrictEqual(config, {
        role: "relay",
        name: "r",
        stateDir: "/etc/sallyport/state",
        listen: { https: { host: "::", port: 443 }, udp: { host: "0.0.0.0", port: 3478 } },
        advertise: { host: "relay.example.com", https: 8443, udp: 3478 },
        tls: { cert: "/etc/sallyport/tls/cert.pem", key: "/keys/key.pem" },
        admin: { _tag: "Unix", path: "/etc/sallyport/state/admin.sock" },
        placement: "default",
        dataThreads: 1,
        telemetry: { otlp: null, sample: 1 },
        logLevel: "info",
        proxyProtocol: [],
        behindProxy: null,
        http3: false,
        app: true,
        resources: [{
          name: "web",
          network: "default",
          address: "10.0.0.5",
          tcp: [{ from: 80, to: 80 }, { from: 8000, to: 8100 }, { from: 90, to: 91 }],
          udp: [],
          allowLoopback: false
        }],
        access: [{ clients: ["*"], resources: ["web"] }]
      })
    }))

  it.effect("settles a client, and leaves out keys that are undefined", () =>
    Effect.gen(function*() {
      const config = yield* decode({
        ...CLIENT,
        socks5: undefined,
        token: { file: "token.txt" },
        admin: { listen: "0.0.0.0:9000", allowRemote: true },
        placement: { one: ["signaling", "stun", "pathProber", "relay"], two: ["streamMux"] },
        forwards: [{ listen: "localhost:0", resource: "web", port: 80 }]
      })
      assert(config.role === "client")
      assert.deepStrictEqual(config.token, { file: "/etc/sallyport/token.txt" })
      assert.deepStrictEqual(config.admin, {
        _tag: "Tcp",
        host: "0.0.0.0",
        port: 9000,
        allowRemote: true,
        allowHosts: []
      })
      assert.deepStrictEqual(config.forwards, [
        { listen: { host: "localhost", port: 0 }, resource: "web", port: 80, protocol: "tcp" }
      ])
      assert.strictEqual(config.socks5, null)
      assert.deepStrictEqual(config.udp, { port: 0, advertise: [], interfaces: { prefer: [], exclude: [] } })
    }))

  it.effect("takes static candidates, and interfaces to prefer and to exclude", () =>
    Effect.gen(function*() {
      const config = yield* decode({
        ...CLIENT,
        udp: {
          port: 41641,
          advertise: ["203.0.113.7:41700", "[2001:DB8::7]:41641", "203.0.113.8", "2001:db8::9"],
          interfaces: { prefer: ["wg0"], exclude: ["docker*", "vEthernet (WSL)"] }
        }
      })
      assert(config.role === "client")
      assert.deepStrictEqual(config.udp.advertise, [
        { host: "203.0.113.7", port: 41700 },
        { host: "2001:db8::7", port: 41641 },
        { host: "203.0.113.8", port: 0 },
        { host: "2001:db8::9", port: 0 }
      ])
      assert.deepStrictEqual(config.udp.interfaces, { prefer: ["wg0"], exclude: ["docker*", "vEthernet (WSL)"] })
      const kept = yield* decode({ ...CLIENT, udp: { advertise: ["203.0.113.8"] } })
      assert(kept.role === "client")
      assert.strictEqual(kept.udp.port, 0, "a NAT that keeps ports needs no fixed one")
    }))

  it.effect("names place and remedy of each mistake under udp", () =>
    Effect.gen(function*() {
      const told = (udp: unknown) => Effect.map(refused({ ...CLIENT, udp }), (lines) => lines.join("\n"))
      const remedy = "write for example advertise: [\"203.0.113.7:41641\"]"
      for (
        const [text, problem] of [
          ["home.example.com:41641", "whose host is not an IP address"],
          ["203.0.113.7:0", "whose port is not 1 to 65535"],
          ["203.0.113.7:70000", "whose port is not 0 to 65535"],
          ["2001:db8::7:41641", "whose IPv6 address is not in brackets"],
          ["127.0.0.1:41641", "at which other machines cannot reach this one"],
          ["0.0.0.0", "at which other machines cannot reach this one"],
          ["[fe80::1]:41641", "at which other machines cannot reach this one"],
          ["udp://203.0.113.7:41641", "which is a URL"]
        ] as const
      ) {
        assert.strictEqual(
          yield* told({ port: 41641, advertise: [text] }),
          `udp.advertise[0]: found ${
            JSON.stringify(text)
          }, ${problem}; expected a public IP address with the forwarded ` +
            `UDP port, as "IP:port", or alone where the NAT keeps the port; ${remedy}`
        )
      }
      assert.match(yield* told({ port: 41641, advertise: "203.0.113.7:41641" }), /^udp\.advertise: found "203/)
      assert.match(
        yield* told({ port: 41641, advertise: Array.from({ length: 5 }, (_, i) => `203.0.113.${i + 1}`) }),
        /^udp\.advertise: .*; expected a list of at most 4 addresses; /
      )
      assert.strictEqual(
        yield* told({ advertise: ["203.0.113.7:41700"] }),
        "udp.advertise[0]: found port 41700 while udp.port is 0, so that each start takes another local port; expected a " +
          "fixed udp.port for the router to forward to; write for example udp: {port: 41641, advertise: " +
          "[\"203.0.113.7:41641\"]}"
      )
      assert.strictEqual(
        yield* told({ port: 1, advertise: ["[2001:db8::7]:9", "[2001:DB8:0::7]:9"] }),
        "udp.advertise[1]: \"[2001:DB8:0::7]:9\" is the same address as udp.advertise[0]; expected each address once; " +
          "remove one of the two"
      )
      assert.strictEqual(
        yield* told({ interfaces: { prefer: ["wg0", "eth1"], exclude: ["eth1"] } }),
        "udp.interfaces.prefer[1]: \"eth1\" is also in udp.interfaces.exclude; expected each interface in one of the two " +
          "lists; remove it from one of them"
      )
      assert.match(
        yield* told({ interfaces: { exclude: [""] } }),
        /^udp\.interfaces\.exclude\[0\]: found ""; expected the name/
      )
      assert.match(yield* told({ interfaces: { ignore: ["eth0"] } }), /unknown key ignore; expected/)
    }))

  it.effect("reports to the relay only if the file says so", () =>
    Effect.gen(function*() {
      const consentOf = (telemetry?: object) =>
        Effect.map(
          decode({ ...CLIENT, ...(telemetry && { telemetry }) }),
          (config) => config.role === "client" && config.telemetry.report
        )
      assert.deepStrictEqual(
        yield* Effect.all([consentOf(), consentOf({ sample: 0.5 }), consentOf({ report: true })]),
        [false, false, true]
      )
      assert.match(
        (yield* refused({ ...CLIENT, telemetry: { report: "yes" } }))[0]!,
        /telemetry\.report.*true or false/
      )
      assert.match((yield* refused({ ...RELAY, telemetry: { report: true } }))[0]!, /telemetry\.report/)
    }))

  for (const role of ["relay", "connector", "client"]) {
    it.effect(`takes the demo's ${role}`, () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* Config.load(`config/demo/${role}.yaml`)).role, role)
      }))

    it.effect(`takes the commented example of a ${role}`, () =>
      Effect.gen(function*() {
        const config = yield* Config.load(`config/${role}.yaml`)
        assert.strictEqual(config.role, role)
        assert.strictEqual(config.stateDir, resolve("config/state"))
      }))
  }

  it.effect("accepts the commented example of a second relay", () =>
    Effect.gen(function*() {
      const config = yield* Config.load("config/relay-second.yaml")
      assert(config.role === "forwarder")
      assert.deepStrictEqual(config.token, { file: resolve("config/token.txt") })
      assert.deepStrictEqual(config.advertise, { host: "relay-2.example.com", udp: 3478 })
    }))

  it.each(
    [
      ["relay", Relay],
      ["relay-second", Forwarder],
      ["connector", Connector],
      ["client", Client]
    ] as const
  )("has every key in the example %s.yaml", (file, { ast }) => {
    const example = readFileSync(`config/${file}.yaml`, "utf8")
    const keys = new Set(keysIn(ast))
    assert.isAbove(keys.size, 15)
    assert.deepStrictEqual([...keys].filter((key) => !new RegExp(`\\b${key}:`).test(example)), [])
  })

  it("knows the actors that there are", () => {
    const names = (actors: ReadonlyArray<{ readonly name: string }>) => actors.map(({ name }) => name).sort()
    assert.deepStrictEqual([...ACTORS.node].sort(), names(Wiring.NODE_ACTORS))
    assert.deepStrictEqual([...ACTORS.relay].sort(), names(Wiring.RELAY_ACTORS))
    assert.deepStrictEqual([...ACTORS.forwarder].sort(), names(Wiring.FORWARDER_ACTORS))
  })

  it.effect("requires a thread for WebRTC only if it is on", () =>
    Effect.gen(function*() {
      const placement = "{control: [signaling, stun, pathProber, relay], data: [streamMux]}"
      const of = (more: string) =>
        write(`role: client\nname: a\nstateDir: state\ntoken: {env: TOKEN}\nplacement: ${placement}\n${more}`)
      assert.strictEqual((yield* Config.load(of("webrtc: off"))).role, "client")
      assert.strictEqual((yield* Config.load(of("webrtc: auto\npath: relay"))).role, "client")
      const { message } = yield* Effect.flip(Config.load(of("webrtc: auto")))
      assert.include(message, "no thread for webRtc")
    }))

  it.effect("accepts ICE servers as in their RFCs, with credentials", () =>
    Effect.gen(function*() {
      const of = (server: string) =>
        write(`role: client\nname: a\nstateDir: state\ntoken: {env: TOKEN}\niceServers: ["${server}"]`)
      const good = ["stun:stun.example.com:3478", "stun:[2001:db8::1]:3478", "turn:user:secret@192.0.2.1:3478"]
      for (const server of good) assert.strictEqual((yield* Config.load(of(server))).role, "client")
      for (
        const server of ["stun.example.com:3478", "turn:192.0.2.1:3478", "stun:host", "turns:user:secret@host:5349"]
      ) {
        const { message } = yield* Effect.flip(Config.load(of(server)))
        assert.include(message, "expected stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT")
      }
    }))

  it.effect("writes a relay's configuration that loads and is the example", () =>
    Effect.gen(function*() {
      const values = { host: "2001:db8::1", httpsPort: 8443, udpPort: 3479, stateDir: "state" }
      const config = yield* Config.load(write(RelayTemplate.render(values)))
      assert(config.role === "relay")
      assert.deepStrictEqual(config.advertise, { host: "2001:db8::1", https: 8443, udp: 3479 })
      const example = { host: "relay.example.com", httpsPort: 443, udpPort: 3478, stateDir: "state" }
      assert.strictEqual(readFileSync("config/relay.yaml", "utf8"), RelayTemplate.render(example))
    }))
})

describe("mistakes", () => {
  it.effect("refuses a directory's keys at a relay that joins another", () =>
    Effect.gen(function*() {
      const joins = { ...RELAY, join: { env: "TOKEN" } }
      const told = "expected a key of a relay with join; remove it, since it belongs to the relay that this one joins"
      const issues = yield* refused({ ...joins, tls: { cert: "a", key: "b" }, access: [] })
      assert.include(issues, `tls: unknown key tls; ${told}`)
      assert.include(issues, `access: unknown key access; ${told}`)
      const secret = yield* refused({
        ...joins,
        listen: { udp: "0.0.0.0:3478" },
        advertise: { host: "relay-2.example.com" },
        join: 7
      })
      assert.lengthOf(secret, 1)
      assert.match(secret[0]!, /^join: found .*expected the token's text, \{file: PATH\} or \{env: NAME\}/)
    }))

  it.effect("wants a second STUN port that is another one", () =>
    Effect.gen(function*() {
      const listen = (stunAlternate: string) => ({ https: "[::]:443", udp: "0.0.0.0:3478", stunAlternate })
      const told = "expected a port of its own, other than that of listen.udp; write for example stunAlternate: "
      assert.deepStrictEqual(yield* refused({ ...RELAY, listen: listen("10.0.0.2:3478") }), [
        `listen.stunAlternate: found port 3478; ${told}"10.0.0.2:3479"`
      ])
      assert.lengthOf(yield* refused({ ...RELAY, listen: listen("10.0.0.2:0") }), 1)
      const config = yield* decode({ ...RELAY, listen: listen("10.0.0.2:3480") })
      assert.deepStrictEqual(config.role === "relay" ? config.listen.stunAlternate : null, {
        host: "10.0.0.2",
        port: 3480
      })
    }))

  it.effect("names a file that cannot be read", () =>
    Effect.gen(function*() {
      const message = (file: string) => Effect.map(Effect.flip(Config.load(file)), (error) => error.message)
      assert.strictEqual(
        yield* message("/nonexistent.yaml"),
        "/nonexistent.yaml: no such file; expected a YAML file; check --config, or begin with a commented example from config/"
      )
      assert.strictEqual(yield* message(dir), `${dir}: found a folder; expected a YAML file; name the file in it`)
      assert.include(yield* problem(new Uint8Array([0x72, 0xff])), "not text in UTF-8")
      assert.include(
        yield* problem("#".repeat(Config.MAX_FILE_BYTES + 1)),
        "the file has 1048577 bytes; expected at most 1048576"
      )
    }))

  it.effect("names an unreadable TLS file at its line", () =>
    Effect.gen(function*() {
      const message = yield* problem(
        `${JSON.stringify(RELAY).slice(0, -1)},\n"tls":\n {"cert": "none.pem", "key": "config"}}`
      )
      assert.match(
        message,
        /^FILE:3:11 tls\.cert: cannot read \/.*none\.pem \(ENOENT\); expected a readable PEM file; /
      )
    }))

  it.effect("refuses a placement that leaves actors out", () =>
    Effect.gen(function*() {
      assert.include((yield* refused({ ...CLIENT, placement: {} }))[0], "placement: no thread for signaling, stun, ")
      assert.include(
        (yield* refused({ ...CLIENT, placement: { a: "stun" } }))[0],
        "placement.a: found \"stun\"; expected a list of actors"
      )
    }))

  it.effect("gives key paths without lines for an object", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* refused({ ...CLIENT, forwards: [{ listen: 8080, resource: "web", port: 80 }] }), [
        "forwards[0].listen: found the number 8080; expected the address where this forward listens, as \"host:port\"; " +
        "write for example listen: \"127.0.0.1:8080\""
      ])
      const error = yield* Effect.flip(decode({ ...CLIENT, udp: "x" }))
      assert.include(error.message, "udp: found \"x\"")
      assert.deepInclude(error.issues[0], { file: null, line: null, column: null })
    }))

  it.effect("survives objects that refer to themselves or throw", () =>
    Effect.gen(function*() {
      const loop: Record<string, unknown> = { ...CLIENT }
      loop["udp"] = loop
      assert.match((yield* refused(loop))[0] ?? "", /^udp\.udp\.udp\.udp: found a value nested too deeply; /)
      const hostile = {
        ...CLIENT,
        get token(): string {
          throw new Error("no")
        }
      }
      assert.match((yield* refused(hostile))[0] ?? "", /^: found a value that cannot be read; /)
    }))

  it.effect("refuses YAML that expands or nests without end", () =>
    Effect.gen(function*() {
      const bomb = [
        "a: &a [1,1,1,1,1,1,1,1,1]",
        ..."bcdefghi".split("").map((name, index) => {
          const before = "abcdefgh"[index] ?? ""
          return `${name}: &${name} [${Array.from({ length: 9 }, () => `*${before}`).join(",")}]`
        })
      ].join("\n")
      assert.include(yield* problem(bomb), "found aliases that expand too far")
      assert.include(yield* problem("[".repeat(100_000)), "nest")
    }))

  it.effect("accepts hosts, CIDRs and wildcards, and explains bad ones", () =>
    Effect.gen(function*() {
      const resource = (address: string) => decode({ ...RELAY, resources: [{ name: "web", address, tcp: [80] }] })
      for (const good of ["a.b", "10.0.0.5", "fd00::1", "10.1.0.0/16", "fd00::/128", "*.corp.example"]) {
        const config = yield* resource(good)
        assert(config.role === "relay")
        assert.strictEqual(config.resources[0]?.address, good)
      }
      const bad = {
        "http://a": "which is a URL",
        "10.0.0.5:80": "which has a port",
        "10.0.0.0/33": "which is not a valid CIDR",
        "10.0.0/8": "which is not a valid CIDR",
        "a*.corp.example": "whose wildcard is not the whole first label of a name",
        "*.10.0.0.1": "whose wildcard is not the whole first label of a name",
        "fe80::1%eth0": "which names an interface of one machine",
        "10.0.0.256": "which is not a valid IPv4 address",
        "a b": "which is neither a name nor an IP address"
      }
      for (const [address, why] of Object.entries(bad)) {
        const error = yield* Effect.flip(resource(address))
        assert.strictEqual(
          error.message,
          `resources[0].address: found ${
            JSON.stringify(address)
          }, ${why}; expected a host name, an IP address, a CIDR or ` +
            "*.NAME, without scheme or port; write for example address: intranet.local"
        )
      }
    }))
})

describe("secrets", () => {
  const secret = fc.stringMatching(/^[A-Za-z]{4}\d[A-Za-z0-9_-]{30,60}$/)

  it("never repeats a token, wherever it was put", () =>
    fc.assert(
      fc.asyncProperty(secret, fc.nat(9), async (token, place) => {
        const texts = [
          `${token}: 1`,
          `role: ${token}`,
          `token:${token}`,
          `role: client\nname: ${token.toUpperCase()}`,
          `role: client\ntoken: [${token}]`,
          `role: client\ntoken: {value: ${token}}`,
          `role: client\n${token}: x`,
          `role: client\ntoken: "${token}`,
          `role: client\nsocks5: ${token}`,
          `role: relay\naccess: [{clients: ["${token}!"]}]`
        ]
        const error = await Effect.runPromise(Effect.flip(Config.load(write(texts[place] ?? ""))))
        assert.notInclude(error.message.toLowerCase(), token.toLowerCase().slice(0, 24))
      }),
      { numRuns: runs(200) }
    ))

  it.effect("reads a token only when asked, and explains how", () =>
    Effect.gen(function*() {
      const token = (value: unknown) =>
        Effect.flatMap(decode({ ...CLIENT, ...(value === undefined ? {} : { token: value }) }), (config) => {
          assert(config.role !== "relay" && config.role !== "forwarder")
          assert.notInclude(JSON.stringify(config), "s3cret")
          return Config.resolveToken(config)
        })
      const file = write(" s3cret\n")
      assert.strictEqual(Redacted.value(yield* token("s3cret")), "s3cret")
      assert.strictEqual(Redacted.value(yield* token(Redacted.make("s3cret"))), "s3cret")
      assert.strictEqual(Redacted.value(yield* token({ file })), "s3cret")
      process.env["CONFIG_TEST_TOKEN"] = "s3cret"
      assert.strictEqual(Redacted.value(yield* token({ env: "CONFIG_TEST_TOKEN" })), "s3cret")
      const help = "create one at the relay with: sallyport token create --config relay.yaml --role client --name alice"
      const why = (value?: unknown) => Effect.map(Effect.flip(token(value)), ({ message }) => message)
      assert.strictEqual(yield* why(), `alice has not enrolled and its configuration has no token; ${help}`)
      assert.strictEqual(
        yield* why({ env: "CONFIG_TEST_NONE" }),
        `the environment variable CONFIG_TEST_NONE holds no token; ${help}`
      )
      assert.strictEqual(
        yield* why({ file: "/nonexistent" }),
        `cannot read the token file /nonexistent (ENOENT); ${help}`
      )
      assert.strictEqual(yield* why({ file: write("\n") }), `the token file ${dir}/${files - 1}.yaml is empty; ${help}`)
    }))
})

describe("any input", () => {
  const examples = fc.constantFrom(
    RelayTemplate.render({ host: "h", httpsPort: 1, udpPort: 1, stateDir: "s" }),
    JSON.stringify({ ...CLIENT, token: { env: "X" }, forwards: [{ listen: "h:1", resource: "a", port: 1 }] }, null, 1)
  )
  /** A good file with some characters replaced. */
  const damaged = fc.tuple(
    examples,
    fc.array(fc.tuple(fc.nat(2000), fc.nat(12), fc.string({ maxLength: 4 })), { maxLength: 4 })
  ).map(
    ([text, edits]) => edits.reduce((all, [at, length, put]) => all.slice(0, at) + put + all.slice(at + length), text)
  )
  const yaml = fc.oneof(
    fc.string(),
    damaged,
    fc.array(fc.constantFrom(..."&*!|>'\"%@`{}[],:-? \t\na1#~<".split(""))).map((all) => all.join(""))
  )
  const value = fc.oneof(
    fc.anything({ withNullPrototype: true, withDate: true, withBigInt: true, withMap: true, withSparseArray: true }),
    fc.tuple(
      fc.constantFrom(RELAY, CLIENT),
      fc.dictionary(
        fc.constantFrom(
          "name",
          "stateDir",
          "token",
          "listen",
          "admin",
          "resources",
          "access",
          "forwards",
          "placement",
          "udp",
          "tls",
          "telemetry"
        ),
        fc.anything()
      )
    ).map(([base, extra]): unknown => Object.assign({}, base, extra))
  )
  /** Succeeds or fails with issues; a defect rejects. */
  const check = async (load: Effect.Effect<Config.Config, Config.ConfigError>, withLines: boolean) => {
    const result = await Effect.runPromise(Effect.either(load))
    if (result._tag === "Right") return
    assert.isAbove(result.left.issues.length, 0)
    for (const issue of result.left.issues) {
      assert.match(issue.message, /;/)
      assert.notInclude(issue.message, "undefined")
      if (withLines) assert(issue.line !== null && issue.line >= 1 && issue.column !== null && issue.column >= 1)
    }
  }

  it(
    "makes `load` say what is wrong, never die",
    () => fc.assert(fc.asyncProperty(yaml, (text) => check(Config.load(write(text)), true)), { numRuns: runs(1500) }),
    60_000
  )

  it(
    "makes `decode` say what is wrong, never die",
    () => fc.assert(fc.asyncProperty(value, (value) => check(decode(value), false)), { numRuns: runs(1500) }),
    60_000
  )
})
