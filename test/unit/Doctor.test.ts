import { assert, describe, it } from "@effect/vitest"
import { diagnose, type Facts, type Status } from "../../src/services/telemetry/Doctor.ts"

const NOW = 1_800_000_000_000
const up = { state: "up", incarnation: 1, restarts: 0, since: NOW - 60_000, lastError: null }
const actor = { ...up, name: "streamMux", queues: [{ name: "inbox", capacity: 100, depth: 1 }] }
const thread = {
  ...up,
  name: "data",
  health: { loopDelayP99Ms: 2, loopUtilization: 0.1, heapUsedBytes: 1e7 },
  actors: [actor]
}
const healthy: Facts = {
  status: {
    peers: [{ name: "office", path: "direct", reason: "direct_proved" }],
    signaling: { state: "up", relay: "relay.example.com:443", problem: "" },
    leg: { kind: "relay-udp", reason: "UDP to the relay works" }
  },
  threads: [thread],
  states: [],
  now: NOW
}
const status = (more: Partial<Status>): Facts => ({ ...healthy, status: { peers: [], ...healthy.status, ...more } })
const death = (at: number, kind: "actor" | "thread" = "actor", name = "streamMux") =>
  ({
    _tag: "State",
    at,
    kind,
    name,
    state: "restarting",
    incarnation: 1,
    message: "out of luck"
  }) as const

const met = { limit: "descriptors", times: 3, agoMs: 1_000 }
const meeting = (...limits: ReadonlyArray<typeof met>): Facts => ({
  ...healthy,
  threads: [{ ...thread, health: { ...thread.health, limits } }]
})

const cases: ReadonlyArray<readonly [string, Facts, "broken" | "poor", RegExp, RegExp]> = [
  [
    "the relay is away",
    status({ signaling: { state: "connecting", relay: "r:443", problem: "cannot reach r:443" } }),
    "broken",
    /cannot reach r:443/,
    /relay runs/
  ],
  [
    "the relay has removed this node",
    status({ signaling: { state: "refused", relay: "r:443", problem: "not enrolled" } }),
    "broken",
    /not enrolled/,
    /token create/
  ],
  [
    "a connector was taken out of service",
    status({ draining: { flows: 1 }, stopping: false }),
    "poor",
    /on purpose \(sallyport drain\).* 1 flow is still open/,
    /sallyport drain --cancel/
  ],
  [
    "a connector that drained is stopping",
    status({ draining: { flows: 2 }, stopping: true }),
    "poor",
    /was asked to stop .* 2 flows are still open/,
    /ends with its last flow/
  ],
  [
    "a relay's disk is full",
    status({ nodes: [1], stateTrouble: { code: "full", message: "its disk is full; free some space" } }),
    "broken",
    /cannot be written: its disk is full; no node, token or rule/,
    /^free some space$/
  ],
  [
    "a node's disk is read-only",
    status({ stateTrouble: { code: "read_only", message: "its disk is read-only; see why" } }),
    "poor",
    /its disk is read-only; nothing is saved/,
    /^see why$/
  ],
  [
    "a relay cannot write its directory",
    status({ nodes: [1], directoryProblem: "the disk quota is used up" }),
    "broken",
    /the disk quota is used up/,
    /tries again/
  ],
  ["a relay's disk is slow", status({ nodes: [1], slowWriteMs: 6300 }), "poor", /one write took 6\.3 s/, /faster disk/],
  [
    "a changed configuration was not taken over",
    status({ reloadProblem: "relay.yaml:2:1 role: wrong\nrelay.yaml:3:1 name: wrong" }),
    "broken",
    /the old values stay in effect: relay.yaml:2:1 role: wrong$/,
    /SIGHUP/
  ],
  [
    "this machine's own firewall refuses UDP",
    status({
      peers: [{ name: "office", path: "relay-tcp", reason: "udp_blocked" }],
      leg: { kind: "relay-tcp", cause: "udp_unanswered", reason: "UDP to the relay gets no answer" },
      udpForbidden: { code: "EPERM", agoMs: 5000 }
    }),
    "poor",
    /own firewall refuses the UDP packets that sallyport sends \(EPERM\); meanwhile packets go by relay-tcp/,
    /^allow outgoing UDP to the relay's UDP port.*nft list ruleset/
  ],
  [
    "descriptors are nearly used up",
    status({ descriptors: { open: 769, limit: 1024, reserve: 64 } }),
    "poor",
    /769 of the 1024 files and sockets.*soon refuse/,
    /ulimit -n/
  ],
  ["descriptors are short", meeting(met), "poor", /open files.*3 times/, /LimitNOFILE/],
  [
    "a thread cannot be started again",
    {
      ...healthy,
      threads: [{
        ...thread,
        state: "restarting",
        lastError: "EMFILE: too many open files\n at x",
        actors: [{ ...actor, state: "waiting" }]
      }]
    },
    "broken",
    /^actor streamMux is waiting: its thread data is restarting: EMFILE: too many open files$/,
    /log/
  ],
  [
    "a sign-in page answers in the relay's place",
    status({
      signaling: { state: "connecting", relay: "r:443", problem: "another server answered", reason: "tls_intercepted" }
    }),
    "broken",
    /another server answered/,
    /sign in/
  ],
  [
    "the proxy wants another login",
    status({
      signaling: {
        state: "connecting",
        relay: "r:443",
        problem: "did not accept",
        reason: "proxy_login",
        proxy: "http://p:1 (HTTPS_PROXY)"
      }
    }),
    "broken",
    /by the proxy http:\/\/p:1 \(HTTPS_PROXY\): did not accept/,
    /password/
  ],
  ["no leg is bound", status({ leg: { kind: null, reason: "no answer" } }), "broken", /no answer/, /UDP or HTTPS/],
  [
    "this machine's clock is behind",
    status({ signaling: { state: "up", relay: "r:443", problem: "", clockAheadMs: -11_000 } }),
    "poor",
    /clock is 11 s behind the relay's/,
    /correct whichever clock/
  ],
  [
    "a second relay's clock is ahead",
    status({ directory: { clockAheadMs: 7_200_000 } }),
    "poor",
    /clock is 2 h ahead of the relay's/,
    /correct whichever clock/
  ],
  [
    "the relay's clock was set while it ran",
    status({ nodes: [{}], clockAheadMs: 3 * 86_400_000 }),
    "poor",
    /3 days ahead of the directory's time/,
    /restart this relay/
  ],
  [
    "the connector refused flows",
    status({
      refusals: [{ host: "web", port: 80, peer: "office", code: "denied", why: "web is 127.0.1.1", count: 3 }]
    }),
    "poor",
    /3 flows to web:80 with office failed.*denied, web is 127\.0\.1\.1/,
    /access/
  ],
  [
    "UDP to the relay is blocked",
    status({ leg: { kind: "relay-tcp", reason: "no answer by UDP" } }),
    "poor",
    /over TLS.*no answer by UDP/,
    /allow outgoing UDP/
  ],
  [
    "another program has the configured UDP port",
    status({ missedPorts: [{ family: 4, port: 41_641, code: "EADDRINUSE" }] }),
    "poor",
    /UDP port 41641 is not available/,
    /ss -lunp/
  ],
  [
    "the relay has no address yet",
    status({ addresses: { all: true, serving: ["127.0.0.1", "::1"], skipped: [], unseen: false } }),
    "broken",
    /loopback addresses only/,
    /interface is up/
  ],
  [
    "the relay cannot have an address",
    status({
      addresses: {
        all: true,
        serving: ["192.0.2.1"],
        skipped: [{ host: "2001:db8::1", code: "EADDRNOTAVAIL" }],
        unseen: false
      }
    }),
    "poor",
    /cannot bind at 2001:db8::1.*EADDRNOTAVAIL/,
    /duplicate/
  ],
  [
    "the relay may not see the machine's addresses",
    status({ addresses: { all: true, serving: ["0.0.0.0"], skipped: [], unseen: true } }),
    "poor",
    /denies it netlink/,
    /AF_NETLINK/
  ],
  [
    "DNS does not know the relay's name",
    status({ leg: { kind: "relay-tcp", cause: "name", reason: "DNS gives no address for the relay's name r" } }),
    "poor",
    /over TLS.*DNS gives no address/,
    /name server.*knows the relay's name/
  ],
  [
    "only web traffic reaches the relay",
    status({ leg: { kind: "relay-h3", reason: "no answer by UDP" } }),
    "poor",
    /over HTTP\/3.*no answer by UDP/,
    /allow outgoing UDP/
  ],
  [
    "both ends are behind symmetric translators",
    status({ peers: [{ name: "office", path: "relay-udp", reason: "probes_unanswered" }] }),
    "poor",
    /office is reached by relay-udp: no direct path answers/,
    /netcheck/
  ],
  [
    "a path's reason comes with that of the leg",
    status({ peers: [{ name: "office", path: "relay-tcp", reason: "udp_blocked (no answer by UDP)" }] }),
    "poor",
    /lets no UDP through/,
    /allow outgoing UDP/
  ],
  [
    "the relay is far away",
    status({ peers: [{ name: "office", path: "relay-udp", reason: "probing", rttMs: 412.3 }] }),
    "poor",
    /round trip to office through the relay takes 412 ms/,
    /nearer/
  ],
  [
    "a peer has fallen silent",
    status({ peers: [{ name: "office", path: "relay-udp", reason: "nothing_answers" }] }),
    "broken",
    /no path answers/,
    /other side runs/
  ],
  [
    "a peer whose direct path went silent",
    status({ peers: [{ name: "office", path: "direct", reason: "nothing_answers" }] }),
    "broken",
    /no path answers/,
    /other side runs/
  ],
  [
    "an actor is given up",
    {
      ...healthy,
      threads: [{ ...thread, actors: [{ ...actor, state: "gave_up", lastError: "out of luck\n  at x" }] }]
    },
    "broken",
    /streamMux is gave_up: out of luck$/,
    /log/
  ],
  [
    "an actor keeps breaking down",
    { ...healthy, states: [4, 3, 2, 1].map((minutes) => death(NOW - minutes * 60_000)) },
    "broken",
    /streamMux failed 4 times.*out of luck/,
    /the error names/
  ],
  [
    "a thread keeps dying, and nobody answers for the status",
    {
      ...healthy,
      status: null,
      states: [4, 3, 2, 1].map((minutes) => death(NOW - minutes * 60_000, "thread", "data"))
    },
    "broken",
    /thread data with streamMux failed 4 times.*out of luck/,
    /the error names/
  ],
  [
    "a queue is nearly full",
    {
      ...healthy,
      threads: [{ ...thread, actors: [{ ...actor, queues: [{ name: "inbox", capacity: 100, depth: 90 }] }] }]
    },
    "poor",
    /inbox is nearly full/,
    /busy/
  ],
  [
    "changed keys wait for a restart",
    status({ restartNeeded: ["path", "udp"] }),
    "poor",
    /old values of path, udp/,
    /restart/
  ],
  [
    "a thread is late",
    { ...healthy, threads: [{ ...thread, health: { ...thread.health, loopDelayP99Ms: 250 } }] },
    "poor",
    /data runs late, by 250 ms/,
    /busy/
  ]
]

describe("doctor", () => {
  it("finds nothing when nothing is wrong, or only long ago", () => {
    assert.deepStrictEqual(diagnose(healthy), [])
    const old = [4, 3, 2, 1].map((hours) => death(NOW - hours * 3_600_000))
    assert.deepStrictEqual(diagnose({ ...healthy, states: old }), [])
    assert.deepStrictEqual(diagnose(status({ peers: [{ name: "office", path: "relay-udp", reason: "probing" }] })), [])
  })

  it.each(cases)("names the cause and a remedy when %s", (_, facts, severity, what, remedy) => {
    const [found, ...others] = diagnose(facts)
    assert.isDefined(found)
    assert.deepStrictEqual(others, [])
    assert.strictEqual(found.severity, severity)
    assert.match(found.what, what)
    assert.match(found.remedy, remedy)
  })

  it("reports the worst first, and a relay that nobody uses", () => {
    const facts = status({ nodes: [], signaling: null, leg: { kind: null, reason: "no answer" } })
    assert.deepStrictEqual(diagnose(facts).map(({ severity }) => severity), ["broken", "poor"])
  })
})
