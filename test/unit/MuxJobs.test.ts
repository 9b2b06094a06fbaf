/** Periodic jobs of the StreamMuxActor: in virtual time each works in its fourth period as in its first, on the state of that moment. */
import { RpcGroup } from "@effect/rpc"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Mailbox, Scope, TestClock } from "effect"
import { vi } from "vitest"
import * as StreamMuxActor from "../../src/actors/mux/StreamMuxActor.ts"
import { Relay, RelayRpcs } from "../../src/actors/relay/RelayRpcs.ts"
import * as Self from "../../src/actors/runtime/actor/Self.ts"
import { type NodeEvent, Signaling, SignalingDown, SignalingRpcs } from "../../src/actors/signaling/SignalingRpcs.ts"
import { LEEWAY_SECONDS } from "../../src/protocol/trust/Documents.ts"
import { LIFETIMES } from "../../src/protocol/trust/Lifetimes.ts"
import { HostClock } from "../../src/services/host/HostClock.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import { Places } from "../../src/transport/flow/Places.ts"
import { Trim } from "../../src/transport/flow/Trim.ts"
import * as FakePeers from "../sim/FakePeers.ts"
import * as Identities from "../sim/nodes/Identities.ts"
import { someTurns, turnsUntil } from "./support/Turns.ts"
import * as VirtualHub from "./support/VirtualHub.ts"

const PERIODS = 4
const unreachable = new SignalingDown({ message: "the relay is not reached" })

/** The calls of its peers that this actor makes here. */
const signalingPart = RpcGroup.make(
  SignalingRpcs.requests.get("Events")!,
  SignalingRpcs.requests.get("Ready")!,
  SignalingRpcs.requests.get("SessionsLost")!
)
const relayPart = RpcGroup.make(RelayRpcs.requests.get("OpenSession")!, RelayRpcs.requests.get("CloseSession")!)

/** Closes a scope while time passes: an actor's last packets leave before it is over. */
const closeInTime = (scope: Scope.CloseableScope) =>
  Effect.raceFirst(
    Scope.close(scope, Exit.void),
    Effect.interruptible(Effect.forever(Effect.zipRight(TestClock.adjust("50 millis"), someTurns)))
  )

/**
 * The data plane of a connector. `run` starts it, in a directory whose clock is ahead of the test's. What its peers say is the
 * test's to change.
 */
const start = Effect.gen(function*() {
  yield* TestClock.setTime(VirtualHub.START)
  const identities = yield* Identities.make
  const events = yield* Mailbox.make<NodeEvent>()
  const seen = { reports: 0, isReachable: true, ready: new Array<string>(), closed: new Array<string>() }
  const signaling = signalingPart.toLayer({
    Events: () => Mailbox.toStream(events),
    Ready: ({ session }: { session: string }) => Effect.sync(() => void seen.ready.push(session)),
    SessionsLost: () =>
      Effect.suspend(() => {
        seen.reports++
        return seen.isReachable ? Effect.void : Effect.fail(unreachable)
      })
  } as never)
  const relay = relayPart.toLayer({
    OpenSession: () => Effect.void,
    CloseSession: ({ session }: { session: string }) => Effect.sync(() => void seen.closed.push(session))
  } as never)
  const peers = FakePeers.layer(
    FakePeers.make(Signaling, signalingPart as never, signaling),
    FakePeers.make(Relay, relayPart as never, relay)
  )
  const run = Effect.fnUntraced(function*(aheadSeconds = 0) {
    const scope = yield* Effect.acquireRelease(Scope.make(), closeInTime)
    yield* StreamMuxActor.actor.start({
      stateDir: identities.connector.stateDir,
      role: "connector",
      carrier: "auto",
      proxy: null,
      ca: null,
      direct: true,
      webRtc: false,
      udpPort: 0,
      local: null,
      listeners: [],
      limits: { flows: 10, flowsPerClient: 10 }
    }).pipe(
      Effect.provide(yield* Layer.build(Layer.merge(peers, Self.layerTest("streamMux")))),
      Effect.provideService(HostClock, yield* VirtualHub.hostClock),
      Scope.extend(scope)
    )
    yield* events.offer({ _tag: "TimeLearned", offsetMs: aheadSeconds * 1000 })
    yield* someTurns
  })
  return { events, identities, run, seen }
})

/** Passes a second of virtual time, and the turns in which what was begun is done. */
const second = Effect.zipRight(TestClock.adjust("1 second"), someTurns)

describe("every period the data plane", () => {
  it.scoped("ends the sessions whose grant has expired by then", () =>
    Effect.gen(function*() {
      const { events, identities: { authority, client, connector }, run, seen } = yield* start
      // The grants are this old when they arrive: the first one lasts until all have arrived.
      yield* run(LIFETIMES.grant + LEEWAY_SECONDS - PERIODS - 1)
      const keys = { clientKey: client.key, connectorKey: connector.key }
      const names = { clientName: "laptop", connectorName: "office", resources: [] }
      // Real time would end their handshakes, which nobody answers.
      vi.useFakeTimers({ toFake: ["performance"] })
      yield* Effect.addFinalizer(() => Effect.sync(() => void vi.useRealTimers()))
      for (let period = 1; period <= PERIODS; period++) {
        const tags = yield* Authority.newSession
        const { signed: grant } = yield* authority.grant({ ...keys, ...names })
        const ticket = yield* authority.ticket({ ...tags, ...keys })
        yield* events.offer({ _tag: "Invite", session: tags.session, grant, ticket })
        yield* turnsUntil(() => seen.ready.length === period)
        yield* second
      }
      assert.deepStrictEqual(seen.closed, [])
      for (let period = 1; period <= PERIODS; period++) {
        yield* second
        assert.deepStrictEqual(seen.closed, seen.ready.slice(0, period), `period ${period}`)
      }
    }))

  it.scoped("looks at the idle flows and at the memory", () =>
    Effect.gen(function*() {
      const { run } = yield* start
      const looks = { places: 0, memory: 0 }
      const places = vi.spyOn(Places.prototype, "tick").mockImplementation(() => void looks.places++)
      const memory = vi.spyOn(Trim.prototype, "tick").mockImplementation(() => void looks.memory++)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          places.mockRestore()
          memory.mockRestore()
        })
      )
      yield* run()
      const first = { ...looks }
      for (let period = 1; period <= PERIODS; period++) {
        yield* second
        assert.deepStrictEqual(looks, { places: first.places + period, memory: first.memory + period })
      }
    }))

  it.scoped("reports lost sessions until the relay is reached", () =>
    Effect.gen(function*() {
      const { run, seen } = yield* start
      seen.isReachable = false
      yield* run()
      assert.strictEqual(seen.reports, 1)
      for (let period = 1; period <= PERIODS; period++) {
        seen.isReachable = period === PERIODS
        yield* second
        assert.strictEqual(seen.reports, 1 + period)
      }
      yield* second
      assert.strictEqual(seen.reports, 1 + PERIODS, "no report follows one that was heard")
    }))
})
