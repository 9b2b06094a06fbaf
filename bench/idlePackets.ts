/** Counts the packets of an idle session; bundled and run by `idle.mjs`. */
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Duration, Effect, Option } from "effect"
import { loadavg } from "node:os"
import { parseArgs } from "node:util"
import type { NetReport } from "../src/protocol/nat/NatReport.ts"
import * as Lab from "../test/natlab/Lab.ts"

/** After the last flow: acknowledgements are on their way, and fresh paths are measured. */
const SETTLE = Duration.seconds(5)
const SAMPLE_MS = 30_000
/** What the goal is told in: packets of the session in so many seconds, each direction. */
const UNIT_MS = 20_000
const HOSTS = ["client", "connector"] as const
/**
 * By the address and the first byte: path messages and QUIC to the peer, frames to the relay, STUN, TLS to the relay, questions to the
 * gateway for port mappings (PCP, NAT-PMP, SSDP).
 */
const KINDS = ["direct", "relay", "stun", "signaling", "gateway", "other"] as const
const GATEWAY_PORTS = "{ 1900, 5351 }"
const WAYS = ["sent", "received"] as const

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    nat: { type: "string", default: "port-restricted" },
    /** Seconds that both NATs keep an idle mapping; without: what the lab has. */
    lifetime: { type: "string" }
  }
})
const minutes = Number(values.minutes)
const nat = values.nat as Lab.Nat

const give = (problem: string) => {
  process.stderr.write(`idle: ${problem}\n`)
  process.exit(2)
}
const lifetimeS = values.lifetime === undefined ? null : Number(values.lifetime)
const before = lifetimeS === null
  ? []
  : HOSTS.map((site) => ["udptimeout", site, String(lifetimeS)])
if (lifetimeS !== null && !(lifetimeS >= 1)) give("--lifetime takes seconds")
if (!(minutes > 0)) give("--minutes takes a positive number")
if (!Lab.isPossible) give("network namespaces need root on Linux")

type Counts = Readonly<Record<string, number>>

const RELAYS = `{ ${Lab.RELAY}, ${Lab.RELAY_2} }`
const STUN_FIRST_BYTES = "@th,64,8 <= 3" // RFC 7983; 64 bits: behind the UDP header
const rules = `table inet idle {
  ${WAYS.flatMap((way) => KINDS.map((kind) => `counter ${kind}-${way} { }`)).join("\n  ")}
  ${chain("sent", "output", "oifname", "daddr", "dport")}
  ${chain("received", "input", "iifname", "saddr", "sport")}
}`

function chain(way: typeof WAYS[number], hook: string, face: string, peer: string, port: string): string {
  const counted = (match: string, kind: typeof KINDS[number]) => `    ${match} counter name ${kind}-${way} return\n`
  const relay = `ip ${peer} ${RELAYS}`
  return `chain ${way} { type filter hook ${hook} priority 0;
    ${face} != "eth0" return
${counted(`${relay} meta l4proto tcp`, "signaling")}${
    counted(`${relay} meta l4proto udp ${STUN_FIRST_BYTES}`, "stun")
  }${counted(`${relay} meta l4proto udp`, "relay")}${counted(`udp ${port} ${GATEWAY_PORTS}`, "gateway")}${
    counted("meta l4proto udp", "direct")
  }${counted("meta l4proto != udp", "other")}  }`
}

const read = (lab: Lab.Lab, host: string): Effect.Effect<Counts, Lab.LabFailed> =>
  Effect.map(lab.exec(host, "nft", "-j", "list", "counters", "table", "inet", "idle"), (text) => {
    type Item = { readonly counter?: { readonly name: string; readonly packets: number } }
    const { nftables } = JSON.parse(text) as { readonly nftables: ReadonlyArray<Item> }
    return Object.fromEntries(
      nftables.flatMap(({ counter }) => (counter === undefined ? [] : [[counter.name, counter.packets]]))
    )
  })
const readBoth = (lab: Lab.Lab) => Effect.all({ client: read(lab, "client"), connector: read(lab, "connector") })

const figureOf = (counts: Counts, elapsedMs: number) =>
  Object.fromEntries(KINDS.map((kind) => [
    kind,
    Object.fromEntries(WAYS.map((way) => {
      const packets = counts[`${kind}-${way}`] ?? 0
      return [way, { packets, in20s: Number((packets * UNIT_MS / elapsedMs).toFixed(2)) }]
    }))
  ]))

const main = Lab.use({ clientNat: nat, connectorNat: nat, before }, (lab) =>
  Effect.gen(function*() {
    yield* lab.fetch("/")
    yield* lab.untilPeer(({ path }) => path === "direct")
    yield* Effect.sleep(SETTLE)
    yield* Effect.forEach(HOSTS, (host) => lab.exec(host, "nft", rules), { concurrency: 2 })
    const startedAt = yield* Clock.currentTimeMillis
    const samples = []
    let now = startedAt
    let ended = false
    while (!ended && now < startedAt + minutes * 60_000) {
      yield* Effect.sleep(Math.min(SAMPLE_MS, startedAt + minutes * 60_000 - now))
      const peer = yield* Effect.option(lab.peer) // asked on the host itself: no packet
      const counts = yield* readBoth(lab)
      now = yield* Clock.currentTimeMillis
      ended = Option.isNone(peer)
      samples.push({ atS: Math.round((now - startedAt) / 1000), path: Option.getOrNull(peer)?.path ?? null, counts })
      process.stderr.write(".")
    }
    process.stderr.write("\n")
    const last = samples.at(-1)!
    const lastFound = (JSON.parse(yield* lab.client("netcheck", "--json")) as NetReport).lifetime
    const elapsedMs = now - startedAt
    const figure = {
      bench: "idle",
      node: process.version,
      load: loadavg(),
      nat,
      lifetimeS,
      found: lastFound,
      elapsedS: Math.round(elapsedMs / 1000),
      /** Sessions that had no flow for ten minutes are ended: the last sample then bears their farewell. */
      sessionEnded: ended,
      hosts: Object.fromEntries(HOSTS.map((host) => [host, figureOf(last.counts[host], elapsedMs)])),
      samples: samples.map(({ atS, counts, path }) => ({
        atS,
        path,
        clientDirect: WAYS.map((way) => counts.client[`direct-${way}`] ?? 0)
      }))
    }
    process.stdout.write(`${JSON.stringify(figure, null, 2)}\n`)
  }))

NodeRuntime.runMain(main)
