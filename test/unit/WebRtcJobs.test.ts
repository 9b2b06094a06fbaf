/** Periodic jobs of the WebRTC actor: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Mailbox, Stream, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DRAINING } from "../../src/actors/mux/StreamMuxRpcs.ts"
import type { SessionPath } from "../../src/actors/path/PathProberRpcs.ts"
import { Peers } from "../../src/actors/runtime/actor/Peers.ts"
import type { SessionId } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { NodeEvent } from "../../src/actors/signaling/SignalingRpcs.ts"
import * as WebRtcActor from "../../src/actors/webrtc/WebRtcActor.ts"
import { RELAY } from "../../src/protocol/path/PathRef.ts"
import { HostClock } from "../../src/services/host/HostClock.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Enrolment from "../../src/services/identity/Enrolment.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import * as ShownMetrics from "./support/ShownMetrics.ts"
import { turnsUntil } from "./support/Turns.ts"

const PERIODS = 4
/** A document that nobody has signed. */
const NOTHING = { payload: new Uint8Array(), signature: new Uint8Array() }

const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}

/** A relayed session that is used and has no hope of a direct path. */
const hopeless = (session: SessionId): SessionPath => ({
  session,
  role: "client",
  peer: "office",
  path: RELAY,
  reason: "udp_blocked",
  rttMs: 1,
  since: 0,
  active: true,
  seeking: true,
  tried: [],
  decisions: 1
})

/** Clients of the actor's peers, by actor name. A call that is not here is a defect. */
const peersOf = (clients: Readonly<Record<string, object>>) =>
  Layer.succeed(
    Peers,
    Peers.of({
      ref: (address) => {
        const call = (how: (client: unknown) => unknown) => how(clients[address.name])
        return { name: address.name, ask: call, subscribe: call } as never
      }
    })
  )

/** The actor of an enrolled node. What its peers say is the test's to change. */
const start = Effect.fnUntraced(function*(role: "client" | "connector", draining = false) {
  yield* TestClock.setTime(Date.parse("2026-03-01T12:00:00Z"))
  const clock = yield* Effect.clock
  const stateDir = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-webrtc-jobs-"))),
    (path) => Effect.promise(() => rm(path, { recursive: true }))
  )
  const authority = Authority.make(newKey())
  const { publicKey } = yield* Keys.loadOrCreate(join(stateDir, Keys.NODE_KEY_FILE))
  const member = { nodeKey: publicKey, name: "office", role, network: role === "client" ? null : "office" } as const
  const home = { host: "192.0.2.1", httpsPort: 443, tls: { _tag: "Ca" as const }, authorityKey: authority.key }
  yield* Enrolment.make(stateDir).save(publicKey, home, yield* authority.membership(member))

  const events = yield* Mailbox.make<NodeEvent>()
  const seen = { tried: new Array<SessionId>(), ready: new Array<SessionId>(), declined: new Array<string>() }
  const world = { paths: new Array<SessionPath>() }
  const { layer, valueOf } = ShownMetrics.make()
  const peers = peersOf({
    streamMux: {
      IceEvents: () => Stream.never,
      TagsOf: ({ session }: { session: SessionId }) => Effect.sync(() => (seen.tried.push(session), null))
    },
    pathProber: { Paths: () => Effect.sync(() => world.paths), Decided: () => Stream.never },
    signaling: {
      BrowsersLost: () => Effect.void,
      Events: () => Mailbox.toStream(events),
      TurnCredentials: () => Effect.fail("no TURN"),
      Ready: ({ session }: { session: SessionId }) => Effect.sync(() => void seen.ready.push(session)),
      Decline: ({ reason }: { reason: string }) => Effect.sync(() => void seen.declined.push(reason))
    },
    stun: { Servers: () => Effect.succeed([]) }
  })
  yield* WebRtcActor.actor.start({ stateDir, role, iceServers: [], draining }).pipe(
    Effect.provide(yield* Layer.build(Layer.merge(peers, layer))),
    Effect.provideService(HostClock, { now: () => clock.unsafeCurrentTimeMillis() })
  )
  return {
    authority,
    connectorKey: publicKey,
    events,
    seen,
    sessions: () => valueOf("sallyport_browser_sessions"),
    world
  }
})

describe("every period WebRTC", () => {
  it.scoped("is tried for the sessions that need it now", () =>
    Effect.gen(function*() {
      const { seen, world } = yield* start("client")
      yield* TestClock.adjust("1 second") // the first look is at once
      for (let period = 1; period <= PERIODS; period++) {
        const session = String(period).padStart(32, "0")
        world.paths = [hopeless(session)]
        seen.tried.length = 0
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(seen.tried, [session], `period ${period}`)
      }
    }))

  it.scoped("ends the sessions of browsers that have not connected", () =>
    Effect.gen(function*() {
      const { authority, connectorKey, events, seen, sessions } = yield* start("connector")
      yield* events.offer({ _tag: "TimeLearned", offsetMs: 0 })
      for (let period = 1; period <= PERIODS; period++) {
        const { publicKey: clientKey } = newKey()
        const tags = yield* Authority.newSession
        const session = tags.session
        const names = { clientName: "laptop", connectorName: "office", resources: [] }
        const { signed: grant } = yield* authority.grant({ clientKey, connectorKey, ...names })
        const ticket = yield* authority.ticket({ ...tags, clientKey, connectorKey })
        yield* events.offer({ _tag: "Invite", session, grant, ticket, over: "webrtc" })
        yield* turnsUntil(() => seen.ready.length === period || seen.declined.length > 0)
        assert.deepStrictEqual([seen.declined, sessions()], [[], 1], `period ${period}`)
        yield* TestClock.adjust("25 seconds")
        assert.strictEqual(sessions(), 1, `period ${period}`)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(sessions(), 0, `period ${period}`)
      }
    }))
})

describe("a restarted WebRTC actor", () => {
  it.scoped("still declines browsers while its connector drains", () =>
    Effect.gen(function*() {
      const { events, seen } = yield* start("connector", true)
      yield* events.offer({ _tag: "TimeLearned", offsetMs: 0 })
      const invite = { session: "1".padStart(32, "0"), grant: NOTHING, ticket: NOTHING, over: "webrtc" as const }
      yield* events.offer({ _tag: "Invite", ...invite })
      yield* turnsUntil(() => seen.ready.length + seen.declined.length > 0)
      assert.deepStrictEqual(seen.declined, [DRAINING])
    }))
})
