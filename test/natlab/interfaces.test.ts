/** Hosts with many interfaces, and addresses that only an operator knows. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import * as Lab from "./Lab.ts"

/** More than a list of candidates holds. */
const BRIDGES = 20
const TEMPORARY = 20
const LOCAL_PORT = 41_641
/** The connector's gateway, which forwards a port of another number. */
const FORWARDED = { host: "198.51.100.34", port: 41_700 }
const STATIC = `${FORWARDED.host}:${FORWARDED.port}`
/** The relay's address that is a duplicate for a while, and the client's that stays one. */
const MENDED = "2001:db8:9::66"
const DUPLICATE = "2001:db8:1:100::66"

/** The same private ranges on each host, as container runtimes choose them, and temporary IPv6 addresses of one network. */
const crowd = (lab: Lab.Lab, host: "client" | "connector", site: number) => {
  const bridge = (i: number) => {
    const address = i < 14 ? `172.${17 + i}.0.1/16` : `192.168.${100 + i}.1/24`
    return [
      `ip link add br${i} type bridge`,
      `ip link add v${i} master br${i} up type veth peer name w${i}`,
      `ip link set w${i} up`,
      `ip link set br${i} up`,
      `ip addr add ${address} dev br${i}`
    ]
  }
  const temporary = (i: number) => [`ip addr add 2001:db8:${site}:100::${0x1000 + i}/64 dev eth0 nodad`]
  const lines = [
    ...Array.from({ length: BRIDGES }, (_, i) => bridge(i)),
    ...Array.from({ length: TEMPORARY }, (_, i) => temporary(i))
  ]
  return lab.exec(host, "sh", "-ec", lines.flat().join("\n"))
}
/** IPv6 leads to the relay, and not from one site to the other. */
const V6_CUT = "table ip6 cut { chain forward { type filter hook forward priority -20; " +
  "ip6 saddr 2001:db8:1::/48 ip6 daddr 2001:db8:3::/48 drop; ip6 saddr 2001:db8:3::/48 ip6 daddr 2001:db8:1::/48 drop; }; }"
const FORWARD = "table ip forward { chain pre { type nat hook prerouting priority -110; " +
  `iifname wan udp dport ${FORWARDED.port} dnat to 10.20.0.10:${LOCAL_PORT}; }; }`

interface Shown {
  readonly address: string
  readonly kind: string
  readonly use: string | null
}
interface Status {
  readonly candidates: ReadonlyArray<Shown>
  readonly leftOut: ReadonlyArray<Shown>
}

/** Waits until the relay's doctor says that an address cannot be bound, or no longer does. */
const untilSkipped = (lab: Lab.Lab, isSkipped: boolean) =>
  lab.admin("doctor").pipe(
    Effect.catchAll(({ out = "" }) => Effect.succeed(out)),
    Effect.filterOrFail(
      (text) => text.includes(`cannot bind at ${MENDED}`) === isSkipped,
      (text) => new Lab.LabFailed({ message: text })
    ),
    Effect.retry({ schedule: Schedule.spaced("1 second"), times: 30 })
  )

describe.skipIf(!Lab.isPossible)("hosts with many interfaces between real NATs", () => {
  it.scopedLive("become direct by the default route or a forwarded port", () =>
    Lab.use({
      v6: true,
      relayOnly: true,
      before: [["dad", "relay", "failed"], ["dad", "client", "failed"]],
      connector: { udp: { port: LOCAL_PORT, advertise: [STATIC] } }
    }, (lab) =>
      Effect.gen(function*() {
        yield* untilSkipped(lab, true)
        yield* lab.net("dad", "relay", "done")
        yield* crowd(lab, "client", 1)
        yield* crowd(lab, "connector", 3)
        yield* lab.exec("inet", "nft", V6_CUT)
        const nodes = Effect.all([lab.start("connector"), lab.start("client")], { concurrency: 2 })
        yield* Effect.scoped(Effect.gen(function*() {
          yield* nodes
          yield* lab.fetch("/")
          yield* lab.untilPeer(({ path }) => path === "direct")
          const told = JSON.parse(yield* lab.client("status", "--json")) as Status
          const offered = told.candidates.map(({ kind, use }) => use ?? kind)
          for (const needed of ["outward", "reflexive"]) assert.include(offered, needed)
          assert.isAtMost(told.candidates.length, 16)
          const known = [...told.candidates, ...told.leftOut].map(({ address }) => address)
          assert.isFalse(known.some((address) => address.includes(DUPLICATE)), "a duplicate is offered to nobody")
          assert.isAtLeast(told.leftOut.filter(({ use }) => use === "virtual").length, BRIDGES / 2)
          const doctor = yield* lab.client("doctor")
          assert.match(doctor, /\nAddresses offered to peers: .*192\.168\.1\.10:\d+ \(eth0, leads out\)/)
          yield* Effect.all([lab.stop("client"), lab.stop("connector")], { concurrency: 2 })
        }))

        yield* untilSkipped(lab, false) // the relay has tried it again
        yield* Effect.all([lab.net("nat", "client", "symmetric"), lab.net("nat", "connector", "symmetric")])
        yield* lab.exec("ngw", "nft", FORWARD)
        yield* nodes
        yield* lab.fetch("/")
        yield* lab.untilPeer(({ path }) => path === "direct")
        const moves = lab.log("client").filter((line) => line.includes("\"path changed\""))
        assert.isTrue(
          moves.some((line) => line.includes(`"path":"${FORWARDED.host}|${FORWARDED.port}"`)),
          moves.join("\n")
        )
      })))
})
