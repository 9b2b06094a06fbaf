import { RpcTest } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Layer, Mailbox, Stream, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { LinkUnavailable, StreamMux, StreamMuxRpcs } from "../../src/actors/mux/StreamMuxRpcs.ts"
import * as RelayActor from "../../src/actors/relay/RelayActor.ts"
import { RelayRpcs } from "../../src/actors/relay/RelayRpcs.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import type { SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import { Signaling, SignalingRpcs } from "../../src/actors/signaling/SignalingRpcs.ts"
import {
  type ControlDatagram,
  type LocalCandidates,
  type NetworkChange,
  Stun,
  StunRpcs
} from "../../src/actors/stun/StunRpcs.ts"
import type { SocketAddr } from "../../src/protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Enrolment from "../../src/services/identity/Enrolment.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as RelayAddresses from "../../src/services/network/RelayAddresses.ts"
import * as FakePeers from "./FakePeers.ts"

const RELAY = { host: "192.0.2.1", port: 3478 }
const NAMED = { host: "relay.invalid", addresses: [RELAY.host, "2001:db8::1"] }
const MOVED = "192.0.2.77"
const HOME = { host: "198.51.100.7", port: 40_123 }
const COOKIE = new Uint8Array(20).fill(0xcc)
const MARK = new Uint8Array(8).fill(0xaa)

/** An enrolled node's state directory, removed at the end. */
const enrolled = Effect.gen(function*() {
  const dir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "sallyport-relay-actor-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const root = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (root === null) return yield* Effect.dieMessage("no key")
  const authority = Authority.make(root)
  const { publicKey } = yield* Keys.loadOrCreate(join(dir, Keys.NODE_KEY_FILE))
  const membership = yield* authority.membership({ nodeKey: publicKey, name: "laptop", role: "client", network: null })
  const relay = { host: RELAY.host, httpsPort: 443, tls: { _tag: "Ca" as const }, authorityKey: authority.key }
  yield* Enrolment.make(dir).save(publicKey, relay, membership)
  const names = yield* Authority.newSession
  const ticket = yield* authority.ticket({ ...names, clientKey: publicKey, connectorKey: authority.key })
  return { dir, credential: yield* authority.credential(publicKey), session: names.session, ticket }
})

const unasked = () => Effect.die("not asked here")

/**
 * The actor, with what it tells the StunActor and what it sends to its relay, which answers unless it is `deaf`. DNS knows
 * no name, so the addresses in `remembered` count until the test sets `dns.addresses`.
 */
const setupAt = Effect.fnUntraced(function*(relayHost: string, remembered = NAMED.addresses) {
  const { credential, dir, session, ticket } = yield* enrolled
  writeFileSync(
    join(dir, RelayAddresses.FILE),
    JSON.stringify({ version: 1, host: NAMED.host, addresses: remembered })
  )
  const dns = { addresses: new Array<string>(), questions: 0 }
  const resolver = Layer.succeed(RelayAddresses.Resolver, () => {
    dns.questions++
    return Promise.resolve(dns.addresses)
  })
  const events = yield* Mailbox.make<SignalingEvent>()
  const incoming = yield* Mailbox.make<ControlDatagram>()
  const changes = yield* Mailbox.make<NetworkChange>()
  const candidates = yield* Mailbox.make<LocalCandidates>()
  const stunStarts = yield* Mailbox.make<number>()
  const muxStarts = yield* Mailbox.make<number>()
  const seen = {
    servers: new Array<ReadonlyArray<SocketAddr>>(),
    mappingChanges: 0,
    binds: 0,
    answers: 0,
    links: 0,
    opens: 0,
    legs: new Array<string>(),
    asked: new Array<string>()
  }
  const relay = { deaf: false, refusesLinks: false, at: null as string | null, mapped: HOME }
  const answer = (from: SocketAddr, message: RelayWire.Message) =>
    incoming.offer({ from, bytes: RelayWire.encode(message) })

  const mux = StreamMuxRpcs.toLayer({
    SendControl: ({ bytes, to }) => {
      seen.asked.push(to.host)
      const asked = Either.getOrThrow(RelayWire.decode(bytes))
      if (asked._tag === "Bind") seen.binds++
      if (asked._tag === "Open") seen.opens++
      if (relay.deaf || (relay.at !== null && to.host !== relay.at)) return Effect.void
      if (asked._tag === "BindRequest") return answer(to, { _tag: "Cookie", nonce: asked.nonce, cookie: COOKIE })
      if (asked._tag === "Ping") return answer(to, { _tag: "Pong", echo: asked.echo })
      if (asked._tag !== "Bind") return Effect.void
      const { nonce } = asked
      return answer(to, { _tag: "Bound", nonce, mark: MARK, lifetimeSeconds: 300, mapped: relay.mapped })
    },
    ControlDatagrams: () => Mailbox.toStream(incoming),
    UseRelay: () => Effect.void,
    UseLeg: ({ leg }) => Effect.sync(() => void seen.legs.push(leg?.kind ?? "none")),
    OpenLink: () => {
      seen.links++
      return relay.refusesLinks ? Effect.fail(new LinkUnavailable({ message: "refused" })) : Effect.never
    },
    CloseLink: () => Effect.void,
    ReplaceLinkByHttp3: unasked,
    LinkEnded: () => Effect.never,
    RebindSockets: unasked,
    LocalPorts: unasked,
    TakeConfiguredPort: unasked,
    Status: unasked,
    Refusals: unasked,
    SetListeners: unasked,
    SetDirect: unasked,
    SetOfflineAccess: unasked,
    Outage: unasked,
    Listeners: unasked,
    SetDraining: unasked,
    PathEvents: () => Stream.never,
    IceEvents: () => Stream.never,
    SendIce: unasked,
    TagsOf: unasked,
    SendPing: unasked,
    AskRead: unasked,
    SendCandidates: unasked,
    KeepPath: unasked,
    SelectPath: unasked,
    SetPacketSize: unasked,
    SampleGuess: unasked,
    OpenGuess: unasked,
    CloseGuess: unasked,
    SendGuesses: unasked,
    TellOpened: unasked,
    RequestSwitch: unasked
  })
  const stun = StunRpcs.toLayer({
    SetServers: ({ servers }) => Effect.sync(() => void seen.servers.push(servers)),
    MappingChanged: () => Effect.sync(() => void seen.mappingChanges++),
    MapPort: unasked,
    NetworkChanges: () => Mailbox.toStream(changes),
    Candidates: () => Mailbox.toStream(candidates),
    Discover: unasked,
    Servers: unasked,
    Local: unasked,
    NetCheck: unasked,
    SetActiveSessions: unasked
  })
  const signaling = SignalingRpcs.toLayer({
    Events: () => Mailbox.toStream(events),
    Dial: unasked,
    Ready: unasked,
    Decline: unasked,
    Renew: unasked,
    Resources: unasked,
    TurnCredentials: unasked,
    Forward: unasked,
    Wanted: () => Stream.empty,
    Report: unasked,
    Findings: unasked,
    BrowsersLost: unasked,
    SessionsLost: unasked,
    Presence: unasked,
    State: unasked,
    RelayAnswers: () => Effect.sync(() => void seen.answers++),
    AwaitUp: unasked
  })
  const layer = RelayActor.layer({ stateDir: dir }).pipe(
    Layer.provide(FakePeers.layer(
      FakePeers.make(StreamMux, StreamMuxRpcs, mux, Mailbox.toStream(muxStarts)),
      FakePeers.make(Stun, StunRpcs, stun, Mailbox.toStream(stunStarts)),
      FakePeers.make(Signaling, SignalingRpcs, signaling)
    )),
    Layer.provide(Self.layerTest("relay")),
    Layer.provide(resolver)
  )
  const client = yield* Effect.provide(RpcTest.makeClient(RelayRpcs), yield* Layer.build(layer))
  yield* TestClock.adjust(0)
  const snapshot = events.offer({
    _tag: "Snapshot",
    version: 1,
    serverTime: 0,
    relay: { host: relayHost, httpsPort: 443, udpPort: RELAY.port },
    relays: [],
    credential
  })
  const open = client.OpenSession({ session, ticket })
  return { candidates, changes, client, dns, muxStarts, open, relay, seen, snapshot, stunStarts }
})

const setup = setupAt(RELAY.host)

const at = (host: string): LocalCandidates => ({
  candidates: [Candidate.make("host", { host, port: 4_000 })],
  leftOut: [],
  udp: "works"
})

/** Files are read outside the test's clock. */
const settled = Effect.fnUntraced(function*(done: () => boolean, stepMs = 1) {
  for (let turn = 0; turn < 2_000; turn++) {
    if (done()) return yield* Effect.yieldNow()
    yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
    yield* TestClock.adjust(stepMs)
  }
  return yield* Effect.dieMessage("it never came to it")
})

describe("RelayActor", () => {
  it.scoped("sends the relay's address to every StunActor that starts", () =>
    Effect.gen(function*() {
      const { seen, snapshot, stunStarts } = yield* setup
      yield* snapshot
      yield* settled(() => seen.servers.length === 1)
      for (const incarnation of [2, 3]) {
        yield* stunStarts.offer(incarnation)
        yield* settled(() => seen.servers.length === incarnation)
      }
      assert.deepStrictEqual(seen.servers, [[RELAY], [RELAY], [RELAY]])
    }))

  it.scoped("binds again when signaling is new, as relays may be", () =>
    Effect.gen(function*() {
      const { client, seen, snapshot } = yield* setup
      yield* snapshot
      yield* settled(() => seen.binds === 1)
      assert.strictEqual((yield* client.State()).kind, "relay-udp")
      yield* snapshot
      yield* settled(() => seen.binds === 2)
      assert.deepStrictEqual(seen.legs, ["relay-udp", "relay-udp"])
      assert.strictEqual(seen.mappingChanges, 0)
    }))

  it.scoped("reports a new NAT mapping, unless it moved itself", () =>
    Effect.gen(function*() {
      const { changes, relay, seen, snapshot } = yield* setup
      yield* snapshot
      yield* settled(() => seen.binds === 1)
      relay.mapped = { ...HOME, port: 50_000 }
      yield* changes.offer({ reason: "addresses", hosts: ["10.0.0.9"], lost: [4] })
      yield* settled(() => seen.binds === 2)
      assert.strictEqual(seen.mappingChanges, 0)
      relay.mapped = { ...HOME, port: 50_001 }
      yield* snapshot
      yield* settled(() => seen.mappingChanges === 1)
    }))

  it.scoped("says that nothing answers, and binds once something does", () =>
    Effect.gen(function*() {
      const { client, relay, seen, snapshot } = yield* setup
      relay.deaf = true
      yield* snapshot
      yield* settled(() => seen.servers.length === 1)
      yield* TestClock.adjust("5 seconds")
      const { kind, reason } = yield* client.State()
      assert.isNull(kind)
      assert.strictEqual(reason, "UDP to the relay gets no answer")
      relay.deaf = false
      yield* Effect.repeatN(TestClock.adjust("1 seconds"), 60)
      assert.strictEqual((yield* client.State()).kind, "relay-udp")
    }))

  it.scoped("tells signaling that the relay answers, after each new binding", () =>
    Effect.gen(function*() {
      const { client, open, relay, seen, snapshot } = yield* setup
      yield* open
      yield* snapshot
      yield* settled(() => seen.binds === 1 && seen.answers === 1)
      relay.deaf = true
      yield* settled(() => seen.legs.at(-1) === "none", 100)
      assert.isNull((yield* client.State()).kind)
      relay.deaf = false
      yield* settled(() => seen.binds === 2 && seen.answers === 2, 100)
    }))

  it.scoped("retries links quickly while sessions have no leg, then rarely", () =>
    Effect.gen(function*() {
      const { open, relay, seen, snapshot } = yield* setup
      yield* open
      yield* snapshot
      yield* settled(() => seen.binds === 1)
      relay.deaf = true
      relay.refusesLinks = true
      yield* settled(() => seen.links > 0, 100)
      // A call between actors takes turns of the real event loop, and time goes on meanwhile: only equal steps compare.
      const triesInTwentySeconds = Effect.gen(function*() {
        const before = seen.links
        for (let step = 0; step < 200; step++) {
          yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          yield* TestClock.adjust("100 millis")
        }
        return seen.links - before
      })
      const hurried = yield* triesInTwentySeconds
      yield* Effect.repeatN(TestClock.adjust("1 seconds"), 59)
      const later = yield* triesInTwentySeconds
      assert.isAtLeast(later, 2)
      assert.isAtLeast(hurried, later + 3)
    }))

  it.scoped("keeps sessions of a new data plane, drops old ones", () =>
    Effect.gen(function*() {
      const { muxStarts, open, seen, snapshot } = yield* setup
      yield* open
      yield* muxStarts.offer(1)
      yield* snapshot
      yield* settled(() => seen.binds === 1 && seen.opens > 0)
      const { opens } = seen
      yield* muxStarts.offer(2)
      yield* settled(() => seen.binds === 2)
      yield* Effect.repeatN(TestClock.adjust("1 seconds"), 5)
      assert.strictEqual(seen.opens, opens)
    }))

  it.scoped("moves between the relay's IPv4 and IPv6 with the host", () =>
    Effect.gen(function*() {
      const { candidates, seen, snapshot } = yield* setupAt(NAMED.host)
      for (const [turn, [host, relay]] of [["10.0.0.1", RELAY.host], ["2001:db8::7", "2001:db8::1"]].entries()) {
        yield* candidates.offer(at(host!))
        if (turn === 0) yield* snapshot
        yield* settled(() => seen.binds === turn + 1)
        assert.strictEqual(seen.asked.at(-1), relay)
      }
      yield* candidates.offer(at("10.0.0.1"))
      yield* settled(() => seen.binds === 3)
      assert.deepStrictEqual([...new Set(seen.asked)], NAMED.addresses)
      assert.strictEqual(seen.asked.at(-1), RELAY.host)
    }))

  it.scoped("follows the relay's name to another address when UDP stops", () =>
    Effect.gen(function*() {
      const { client, dns, relay, seen, snapshot } = yield* setupAt(NAMED.host, [RELAY.host])
      dns.addresses = [RELAY.host]
      relay.at = RELAY.host
      yield* snapshot
      yield* settled(() => seen.binds === 1 && dns.questions === 1)
      dns.addresses = [MOVED]
      relay.at = MOVED
      yield* settled(() => seen.binds === 2, 100)
      yield* settled(() => seen.legs.at(-1) === "relay-udp")
      const { cause, kind, relay: at } = yield* client.State()
      assert.deepStrictEqual([kind, cause, at], ["relay-udp", "works", { ...RELAY, host: MOVED }])
      assert.deepStrictEqual(seen.servers.at(-1), [{ ...RELAY, host: MOVED }])
    }))

  it.scoped("follows the relay's name when signaling comes back", () =>
    Effect.gen(function*() {
      const { dns, relay, seen, snapshot } = yield* setupAt(NAMED.host, [RELAY.host])
      dns.addresses = [RELAY.host]
      yield* snapshot
      yield* settled(() => seen.binds === 1 && dns.questions === 1)
      dns.addresses = [MOVED]
      relay.at = MOVED
      yield* snapshot
      yield* settled(() => seen.binds === 2, 10)
      assert.strictEqual(seen.asked.at(-1), MOVED)
    }))

  it.scoped("keeps the address that answers, whatever DNS says", () =>
    Effect.gen(function*() {
      const { client, dns, relay, seen, snapshot } = yield* setupAt(NAMED.host, [RELAY.host])
      relay.at = RELAY.host
      yield* snapshot
      yield* settled(() => seen.binds === 1)
      dns.addresses = [MOVED]
      const { questions } = dns
      yield* snapshot
      yield* settled(() => seen.binds === 2 && dns.questions > questions)
      yield* Effect.repeatN(TestClock.adjust("1 seconds"), 60)
      assert.deepStrictEqual((yield* client.State()).relay, RELAY)
    }))

  it.scoped("asks DNS again for a name that was unknown", () =>
    Effect.gen(function*() {
      const { client, dns, seen, snapshot } = yield* setupAt(NAMED.host, [])
      yield* snapshot
      yield* settled(() => dns.questions === 1)
      yield* Effect.repeatN(TestClock.adjust("1 seconds"), 20)
      const { cause, kind, reason } = yield* client.State()
      assert.deepStrictEqual([kind, cause], [null, "name"])
      assert.match(reason, /DNS gives no address for the relay's name relay\.invalid/)
      dns.addresses = [RELAY.host]
      yield* settled(() => seen.binds === 1, 100)
      assert.strictEqual((yield* client.State()).kind, "relay-udp")
    }))
})
