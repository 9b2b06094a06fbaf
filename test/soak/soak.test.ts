/**
 * The product over time: real processes, with flows and changes of rules all the way, until every lifetime has passed at least three
 * times. By default a build with short lifetimes runs for about 3 minutes; with `SOAK_MINUTES=35` the real lifetimes are played, and
 * with `SOAK_MINUTES=10 SOAK_BUSY=23` threads and flows are watched on a busy host.
 */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync, spawn } from "node:child_process"
import { loadavg } from "node:os"
import { join } from "node:path"
import { LIFETIMES, type Lifetimes, NORMAL, SHORT } from "../../src/protocol/trust/Lifetimes.ts"
import { ROOT, serve } from "../programs/support/Programs.ts"
import { type Client, dialUntil, during, EchoFlow, Net, untilRefused } from "./Net.ts"

const MINUTES = Number(process.env["SOAK_MINUTES"] ?? 0)
/** How many programs keep the host busy meanwhile. A run on a busy host is about threads and flows, not about lifetimes. */
const BUSY = Number(process.env["SOAK_BUSY"] ?? 0)
const isShort = MINUTES === 0
const LIVES: Lifetimes = isShort ? SHORT : NORMAL
/** How often each lifetime must pass. */
const TIMES = 3
const SHORT_MS = 150_000
const DURATION_MS = isShort ? SHORT_MS : MINUTES * 60_000
/** "Connection not allowed by ruleset" (RFC 1928, section 6). */
const NOT_ALLOWED = 2

/** Lifetimes that a run of 35 minutes cannot pass three times; the short run passes all. */
const DAYS: ReadonlySet<string> = new Set([
  "outage",
  "ticket",
  "turn",
  "resumption",
  "certificate",
  "certificateRenewBefore",
  "certificateCheck",
  "idleSession"
])

const quantile = (list: ReadonlyArray<number>, q: number) =>
  Math.round(list.toSorted((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))] ?? 0)

const main = () => {
  if (!isShort) return join(ROOT, "dist", "cli", "main.js")
  execFileSync(process.execPath, [join(ROOT, "scripts", "build.mjs"), "--short-lifetimes"], { stdio: "inherit" })
  return join(ROOT, "dist-soak", "cli", "main.js")
}

describe("the product over time", () => {
  it("keeps flows, legs and promises through three lives of everything", async () => {
    assert.strictEqual(LIFETIMES, NORMAL, "this test's own process runs the released lifetimes")
    for (const [name, seconds] of Object.entries(LIVES)) {
      if (BUSY > 0 || (!isShort && DAYS.has(name))) continue
      assert.isAtLeast(DURATION_MS / 1000, TIMES * seconds, `${name} passes ${TIMES} times`)
    }
    const resource = await serve((socket) => socket.pipe(socket))
    const net = new Net(main())
    const busy = Array.from({ length: BUSY }, () => spawn(process.execPath, ["-e", "for(;;);"]))
    try {
      const target = { address: "127.0.0.1", tcp: [resource.port], allowLoopback: true }
      const resources = [{ name: "steady", ...target }, { name: "wiki", ...target }]
      const everything = [{ clients: ["*"], resources: ["*"] }]
      await net.relay({ resources, access: everything })
      await net.connector("office")
      const direct = await net.client("laptop")
      const relayed = await net.client("phone", { path: "relay" })
      const rare = await net.client("tablet")
      const old: Array<readonly [string, EchoFlow]> = []
      const begin = async (client: Client) => {
        old.push([client.name, new EchoFlow(await dialUntil(client, "steady", resource.port))])
      }
      await begin(direct)
      await begin(relayed)

      const counts = { newFlows: 0, sessions: 0, joined: 0, ruleChanges: 0, looks: 0 }
      const cuts: Array<number> = []
      const memory: Array<Readonly<Record<string, number>>> = [net.memory()]
      const end = performance.now() + DURATION_MS

      const useOnce = async (client: Client) => {
        const flow = new EchoFlow(await dialUntil(client, "steady", resource.port))
        await flow.proves(`a new flow of ${client.name}`)
        flow.end()
        counts.newFlows++
      }
      const changeRules = async () => {
        const flow = new EchoFlow(await dialUntil(direct, "wiki", resource.port))
        await flow.proves("a flow that is to be cut")
        const since = performance.now()
        net.reload({ access: [{ clients: ["*"], resources: ["steady"] }] })
        await flow.ended
        cuts.push(performance.now() - since)
        await untilRefused(direct, "wiki", resource.port, NOT_ALLOWED)
        net.reload({ access: everything })
        counts.ruleChanges++
      }
      const look = async () => {
        for (const { name } of [direct, relayed, rare]) {
          await net.untilConnected(name)
        }
        for (const [name, flow] of old) await flow.proves(`the oldest flow of ${name}`)
        memory.push(net.memory())
        counts.looks++
      }
      const join = async () => {
        const client = await net.client(`guest-${++counts.joined}`)
        await begin(client)
      }
      await Promise.all([
        during(end, () => useOnce(direct), 1_000),
        during(end, () => useOnce(relayed), 1_000),
        // Longer than a session without flows lives, so that each time is a new session.
        during(end, async () => {
          await useOnce(rare)
          counts.sessions++
        }, (LIVES.idleSession + 5) * 1000),
        during(end, changeRules, 3_000),
        during(end, look, 5_000),
        during(end, join, DURATION_MS / 4)
      ])
      await look()
      const ofAll = (what: RegExp) => [...net.programs.keys()].flatMap((name) => net.said(name, what))
      assert.deepStrictEqual(ofAll(/"message":"?(\[)?"?(thread|actor) (restarting|gave_up)/), [])
      for (const name of net.programs.keys()) {
        // A host that is kept busy by others may be late with an answer; a document that ended is this product's own fault.
        assert.deepStrictEqual(net.said(name, /leg was lost: (?!unanswered)|"logLevel":"ERROR"/), [], name)
      }
      const doctor = await net.cli("doctor", "--config", net.file("laptop"))
      const sizes = memory.at(-1) ?? {}
      const growth = Object.fromEntries(
        Object.entries(memory[Math.floor(memory.length / 2)] ?? {}).map((
          [name, mib]
        ) => [name, (sizes[name] ?? 0) - mib])
      )
      process.stdout.write(`${
        JSON.stringify({
          seconds: DURATION_MS / 1000,
          ...counts,
          lateLegs: ofAll(/leg was lost: unanswered/).length,
          load: loadavg().map(Math.round),
          oldFlows: old.length,
          echoed: old.reduce((sum, [, flow]) => sum + flow.echoed, 0),
          cutMs: { n: cuts.length, p50: quantile(cuts, 0.5), p99: quantile(cuts, 0.99) },
          mib: sizes,
          growthSinceHalfMib: growth,
          doctor: String(doctor.out).trim()
        })
      }\n`)
      for (const [, flow] of old) flow.end()
    } catch (error) {
      for (const [name, { lines }] of net.programs) {
        process.stderr.write(`--- ${name}\n${lines.slice(-20).join("\n")}\n`)
      }
      throw error
    } finally {
      for (const one of busy) one.kill("SIGKILL")
      await net.stop()
      resource.close()
    }
  }, DURATION_MS + 15 * 60_000)
})
