import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import * as Lab from "./Lab.ts"

/** IPv6's smallest, as some tunnels have it. */
const NARROW = "1280"
/** MTUs of PPPoE, GRE and WireGuard, and the smallest one, in bytes. */
const WIDTHS = ["1492", "1476", "1420", NARROW]
/** Routers that say nothing about packets that are too large for the next link. */
const NO_ICMP = "add table inet quiet { chain out { type filter hook output priority 0; meta l4proto icmp drop; }; }"
const RATE = 600_000
/** The size in use is proved every two seconds, and three probes of half a second must be lost. */
const NOTICED_MS = 8_000

/** Smaller than QUIC's smallest packet with its heads: 1,236 bytes. */
const TOO_NARROW = "1200"

/** Waits for a leg of that kind, and answers with its cause. */
const untilLeg = (lab: Lab.Lab, kind: string) =>
  lab.client("status", "--json").pipe(
    Effect.map((text) =>
      (JSON.parse(text) as { readonly leg: { readonly kind: string | null; readonly cause: string } | null }).leg
    ),
    Effect.flatMap((leg) =>
      leg?.kind === kind ? Effect.succeed(leg.cause) : new Lab.LabFailed({ message: JSON.stringify(leg) })
    ),
    Effect.retry({ schedule: Schedule.spaced("500 millis"), times: 240 })
  )

const isDirect = ({ path }: { readonly path: string }) => path === "direct"

describe.skipIf(!Lab.isPossible)("what the way carries", () => {
  it.scopedLive("every byte gets through tunnels that drop ICMP", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        yield* lab.exec("inet", "nft", NO_ICMP)
        for (const width of WIDTHS) {
          yield* lab.net("mtu", "connector", width)
          const relayed = yield* lab.fetch("/file")
          assert.deepStrictEqual([relayed.code, relayed.sha256], [0, Lab.FILE_SHA256], `at ${width}`)
        }
        yield* lab.untilPeer(isDirect)
        const direct = yield* lab.fetch("/file")
        assert.deepStrictEqual([direct.code, direct.sha256], [0, Lab.FILE_SHA256], "direct")
      })))

  it.scopedLive("relays by TCP while UDP is too small", () =>
    Lab.use({ before: [["hostmtu", "client", TOO_NARROW]] }, (lab) =>
      Effect.gen(function*() {
        const { code, sha256 } = yield* lab.fetch("/file")
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        assert.strictEqual(yield* untilLeg(lab, "relay-tcp"), "udp_too_small")
        const told = Effect.catchAll(lab.client("doctor"), ({ out }) => Effect.succeed(out ?? ""))
        assert.match(yield* told, /small packets only[^]*raise the MTU/)
        yield* lab.net("hostmtu", "client", "1500")
        assert.strictEqual(yield* untilLeg(lab, "relay-udp"), "works")

        // The same for a firewall on the client's own host, which shows as refused sends.
        const nft = (...rule: ReadonlyArray<string>) => lab.exec("client", "nft", ...rule)
        yield* nft("add table inet own { chain out { type filter hook output priority 0; meta l4proto udp drop; }; }")
        const { code: relayed } = yield* lab.fetch("/file")
        assert.strictEqual(relayed, 0)
        yield* untilLeg(lab, "relay-tcp")
        assert.match(
          yield* told,
          /own firewall refuses the UDP packets that sallyport sends \(EPERM\); meanwhile packets go by relay-tcp/
        )
        yield* nft("delete", "table", "inet", "own")
        assert.strictEqual(yield* untilLeg(lab, "relay-udp"), "works")
      })))

  it.scopedLive("a download goes on when its path becomes narrow", () =>
    Lab.use({}, (lab) =>
      Effect.gen(function*() {
        const file = yield* lab.hold(RATE)
        yield* lab.untilPeer(isDirect)
        yield* lab.net("mtu", "connector", NARROW)
        const { code, sha256, stallMs } = yield* file.finish
        assert.deepStrictEqual([code, sha256], [0, Lab.FILE_SHA256])
        Lab.tell("longestStallMs", stallMs, NOTICED_MS)
      })))
})
