/**
 * A lab with nothing in it but a client's host behind a NAT, and three programs on the relay's host: our relay, which answers STUN
 * at two addresses and two ports, and coturn as an independent server where it is installed (Debian: `coturn`).
 */
import { Effect, type Scope } from "effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { NatReport, NetReport } from "../../src/protocol/nat/NatReport.ts"
import { HANG_MS } from "../support/Hang.ts"
import * as Lab from "./Lab.ts"

const PORT = 3478
const COTURN_PORT = 5478
const COTURN_CLIENT = "turnutils_natdiscovery"

export type Behaviours = { readonly mapping: string | null; readonly filtering: string | null }
export interface NetcheckLab {
  readonly setNat: (nat: Lab.Nat) => Effect.Effect<void, Lab.LabFailed>
  /** `sallyport netcheck --relay` from the client's host; the table, and what it is made of. */
  readonly netcheck: (server: "relay" | "coturn") => Effect.Effect<NatReport & Pick<NetReport, "direct">, Lab.LabFailed>
  readonly table: Effect.Effect<string, Lab.LabFailed>
  /** What coturn's client finds out from our relay. */
  readonly independent: Effect.Effect<Behaviours, Lab.LabFailed>
}

export const hasCoturn = Lab.isPossible && spawnSync(COTURN_CLIENT, [], { env: Lab.ENV }).error === undefined
if (Lab.isPossible && !hasCoturn) {
  process.stderr.write("COTURN NOT COMPARED: it is not installed. Only our own client and server are tried together.\n")
}

let labs = 0

export const make = (
  options: { readonly cgn?: Lab.Nat } = {}
): Effect.Effect<NetcheckLab, Lab.LabFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const name = `n${process.pid.toString(36)}x${labs++}`
    const net = (...args: ReadonlyArray<string>) => Lab.output(join(Lab.LAB_DIR, "natlab.sh"), [name, ...args])
    const on = (host: string, ...command: ReadonlyArray<string>) =>
      ["ip", ["netns", "exec", `nl-${name}-${host}`, ...command]] as const
    const dir = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "netcheck-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    )
    yield* Effect.acquireRelease(
      net("up", ...(options.cgn === undefined ? [] : ["--client-cgn", options.cgn])),
      () => Effect.ignore(net("down"))
    )
    const launch = (...command: ReadonlyArray<string>) =>
      Effect.acquireRelease(Effect.sync(() => spawn(...on("relay", ...command), { cwd: dir, env: Lab.ENV })), Lab.end)
    const config = join(dir, "relay.json")
    writeFileSync(config, JSON.stringify(relayConfig))
    const args = ["run", "--config", config, "--log-format", "json", "--new-identity"]
    const relay = yield* launch(process.execPath, Lab.PROGRAM, ...args)
    yield* Lab.untilReady("relay", relay, [])
    if (hasCoturn) yield* untilSaid(yield* launch("turnserver", ...coturnArgs(dir)), "DB connection success")

    const netcheck = (server: "relay" | "coturn", ...more: ReadonlyArray<string>) =>
      Lab.output(...on(
        "client",
        process.execPath,
        Lab.PROGRAM,
        "netcheck",
        "--relay",
        `${Lab.RELAY}:${server === "relay" ? PORT : COTURN_PORT}`,
        ...more
      ))
    return {
      setNat: (nat) => Effect.asVoid(net("nat", "client", nat)),
      netcheck: (server) =>
        Effect.flatMap(netcheck(server, "--json"), (text) => {
          const { direct, ipv4 } = JSON.parse(text) as NetReport
          return ipv4 === null ? new Lab.LabFailed({ message: "no IPv4 report" }) : Effect.succeed({ ...ipv4, direct })
        }),
      table: netcheck("relay"),
      // With -P its requests have PADDING, without which our answers would be longer than they are.
      independent: Effect.map(
        Lab.output(...on("client", COTURN_CLIENT, "-m", "-f", "-P", "-p", String(PORT), Lab.RELAY)),
        behavioursOf
      )
    }
  })

const relayConfig = {
  role: "relay",
  name: "relay",
  stateDir: "relay",
  listen: { https: `${Lab.RELAY}:443`, udp: `${Lab.RELAY}:${PORT}`, stunAlternate: `${Lab.RELAY_2}:${PORT + 1}` },
  advertise: { host: Lab.RELAY },
  resources: [],
  access: []
}

const coturnArgs = (dir: string) =>
  [
    "-n --stun-only --no-tls --no-dtls --no-cli --no-auth --log-file stdout --simple-log",
    `-L ${Lab.RELAY} -L ${Lab.RELAY_2} -p ${COTURN_PORT} --alt-listening-port ${COTURN_PORT + 1}`,
    `--pidfile ${join(dir, "coturn.pid")} --userdb ${join(dir, "coturn.db")}`
  ].flatMap((line) => line.split(" "))

const WORDS: Readonly<Record<string, string>> = {
  "Endpoint Independent": "endpoint-independent",
  "Address Dependent": "address-dependent",
  "Address and Port Dependent": "address-and-port-dependent"
}

const behavioursOf = (text: string): Behaviours => {
  const of = (what: string) => WORDS[new RegExp(`NAT with (.*) ${what}!`).exec(text)?.[1] ?? ""] ?? null
  return { mapping: of("Mapping"), filtering: of("Filtering") }
}

const untilSaid = (child: ChildProcess, text: string): Effect.Effect<void, Lab.LabFailed> =>
  Effect.async<void, Lab.LabFailed>((resume) => {
    child.once("exit", (code) => resume(new Lab.LabFailed({ message: `coturn ended with code ${code}` })))
    child.once("error", ({ message }) => resume(new Lab.LabFailed({ message })))
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) createInterface({ input: stream }).on("line", (line) => line.includes(text) && resume(Effect.void))
    }
  }).pipe(Effect.timeoutFail({
    duration: HANG_MS,
    onTimeout: () => new Lab.LabFailed({ message: `coturn did not say ${text}` })
  }))
