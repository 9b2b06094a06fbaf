/** The sessions of a client and of a connector, over real QUIC and a relay in memory; signaling and the RelayActor are the test's. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber, Schedule } from "effect"
import { generateKeyPairSync } from "node:crypto"
import * as FlowTrace from "../../src/actors/mux/FlowTrace.ts"
import { MuxMetrics } from "../../src/actors/mux/MuxMetrics.ts"
import * as Sessions from "../../src/actors/mux/sessions/Sessions.ts"
import { DRAINING } from "../../src/actors/mux/StreamMuxRpcs.ts"
import type { PathEvent } from "../../src/actors/path/PathProberRpcs.ts"
import { DialRefused, type SignalingEvent } from "../../src/actors/signaling/RelaySignalingRpcs.ts"
import { tagFromHex } from "../../src/protocol/bytes/Frame.ts"
import * as Candidate from "../../src/protocol/candidate/Candidate.ts"
import type * as PeerLoss from "../../src/protocol/path/PeerLoss.ts"
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import { type Reach, RETURN_MS } from "../../src/protocol/trust/Outage.ts"
import type { Signed } from "../../src/protocol/trust/Signed.ts"
import * as Authority from "../../src/services/identity/Authority.ts"
import * as Keys from "../../src/services/identity/Keys.ts"
import { makeNode, type Node } from "./support/SessionRig.ts"

/** Less than a session without flows lives. */
const STEP_SECONDS = 300

const RESOURCE = {
  name: "echo",
  network: "default",
  address: "127.0.0.1",
  tcp: [{ from: 80, to: 80 }],
  udp: [],
  allowLoopback: true
}

const TARGET = { kind: "tcp", host: "echo", port: 80 } as const

const setup = Effect.gen(function*() {
  const root = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (root === null) return yield* Effect.dieMessage("no key")
  const authority = Authority.make(root)
  const time = { aheadMs: 0 }
  /** How far both hosts' clocks are ahead, so that grants run out. Documents are signed by the real time. */
  const host = { aheadMs: 0, connectorNowMs: 0 }
  const directory = {
    reach: { reached: true, sinceMs: 0 } as Reach,
    offlineSeconds: 24 * 3600,
    permits: true,
    answers: true
  }
  const openedBy = <K extends "grant" | "outage">(kind: K) => (signed: Signed) =>
    Either.mapLeft(
      Authority.verify(kind, signed, authority.key, Math.floor(Date.now() / 1000)),
      ({ message }) => message
    )
  const clocksOf = (node: Node) => ({
    hostMs: () => node.hostMs() + host.aheadMs,
    reach: () => directory.reach,
    maxOutageSeconds: () => node.role === "client" ? Infinity : directory.offlineSeconds,
    openGrant: openedBy("grant"),
    openOutage: openedBy("outage")
  })
  const made = yield* Effect.promise(() => makeNode("client"))
  const client: Node = { ...made, ...clocksOf(made), now: () => made.now() + time.aheadMs, leg: () => "relay-tcp" }
  const madeConnector = yield* Effect.promise(() => makeNode("connector"))
  const connector: Node = {
    ...madeConnector,
    ...clocksOf(madeConnector),
    now: () => madeConnector.now() + host.connectorNowMs
  }
  const names = yield* Authority.newSession
  const keys = { clientKey: client.key, connectorKey: connector.key }
  const parties = { ...keys, clientName: "laptop", connectorName: "office" }
  /** What the directory signs for this session when it is asked. */
  const documents = Effect.gen(function*() {
    const ticket = yield* authority.ticket({ ...names, ...keys })
    const resources = directory.permits ? [RESOURCE] : []
    const { id, signed: grant } = yield* authority.grant({ ...parties, resources })
    return { grant, outage: yield* authority.outage(id), ticket }
  })
  const { grant, outage, ticket } = yield* documents
  const renewed: Array<Signed> = []
  const connectorIs: { told: (event: SignalingEvent) => Effect.Effect<void> } = { told: () => Effect.void }
  const { session } = names

  /** What the relay has for a dial, and why the connectors declined. */
  let next = { session, grant, outage, ticket }
  const declined: Array<string> = []
  const relayKnows: { presence: PeerLoss.Presence } = { presence: "connected" }
  /** What each dial excluded, and what the relay has for dials that exclude the connector. */
  const dials: Array<ReadonlyArray<string>> = []
  const others: { dial: Effect.Effect<unknown, DialRefused> } = {
    dial: Effect.suspend(() => new DialRefused({ code: "no_connector", message: "none" }))
  }
  const make = Effect.fnUntraced(function*(node: Node) {
    const events: Array<PathEvent> = []
    const opened: Array<{ readonly session: string; readonly ticket: Signed }> = []
    const relay = {
      OpenSession: (asked: { session: string; ticket: Signed }) => Effect.sync(() => void opened.push(asked)),
      CloseSession: () => Effect.void
    }
    const signaling = {
      Presence: () => Effect.sync(() => relayKnows.presence),
      Renew: () =>
        Effect.gen(function*() {
          if (!directory.answers) return yield* new DialRefused({ code: "overloaded", message: "not now" })
          const fresh = yield* documents
          renewed.push(fresh.ticket)
          yield* connectorIs.told({ _tag: "TicketRenewed", session, ticket: fresh.ticket })
          return fresh
        }),
      Dial: ({ exclude }: { readonly exclude: ReadonlyArray<string> }) =>
        Effect.suspend(() => {
          dials.push(exclude)
          if (exclude.includes(connector.key)) return others.dial
          return Effect.succeed({ connectorKey: connector.key, connectorName: "office", ...next })
        }),
      Ready: () => Effect.void,
      Decline: ({ reason }: { readonly reason: string }) => Effect.sync(() => void declined.push(reason))
    }
    const refTo = (name: string, handlers: object) =>
      ({ name, ask: (call: (client: object) => Effect.Effect<unknown>) => call(handlers) }) as never
    const sessions = Sessions.make({
      node,
      ticketKeys: node.ticketKeys,
      authorityKey: authority.key,
      timeKnown: Effect.void,
      webRtc: false,
      draining: false,
      signaling: refTo("signaling", signaling),
      relay: refTo("relay", relay),
      publish: (event) => void events.push(event),
      onIce: () => undefined,
      onRefused: () => undefined,
      metrics: new MuxMetrics(),
      traces: yield* FlowTrace.make,
      fork: (effect) => void Effect.runFork(effect)
    })
    yield* Effect.addFinalizer(() => Effect.sync(() => sessions.closeAll(0, "over")))
    return { events, opened, sessions }
  })
  const here = yield* make(client)
  const there = yield* make(connector)
  connectorIs.told = there.sessions.onSignal
  const join = (from: Node, tag: string, to: Node) =>
    from.carriers.set(tagFromHex(tag), (frames) => {
      const own = Buffer.from(frames)
      setImmediate(() => to.router.onLinkFrames(own))
    })
  join(client, names.clientTag, connector)
  join(connector, names.connectorTag, client)
  yield* there.sessions.onSignal({ _tag: "Invite", session, grant, outage, ticket })
  yield* until(() => there.opened.length === 1)
  yield* Effect.orDie(here.sessions.obtain({ kind: "tcp", host: "echo", port: 80 }))
  yield* until(() => there.events.some(({ _tag }) => _tag === "SessionUp"))
  /** A second connector of the network, with its part of a session. The relay gives it to dials that exclude the first. */
  const addOther = Effect.gen(function*() {
    const branch = yield* Effect.promise(() => makeNode("connector"))
    const names = yield* Authority.newSession
    const keys = { clientKey: client.key, connectorKey: branch.key }
    const ticket = yield* authority.ticket({ ...names, ...keys })
    const { signed: grant } = yield* authority.grant({
      ...keys,
      clientName: "laptop",
      connectorName: "branch",
      resources: [RESOURCE]
    })
    const its = yield* make(branch)
    join(client, names.clientTag, branch)
    join(branch, names.connectorTag, client)
    yield* its.sessions.onSignal({ _tag: "Invite", session: names.session, grant, ticket })
    others.dial = Effect.succeed({
      session: names.session,
      connectorKey: branch.key,
      connectorName: "branch",
      grant,
      ticket
    })
    return names.session
  })
  /** The relay invites the connector to another session. The next dial gets it. */
  const inviteAgain = Effect.gen(function*() {
    const names = yield* Authority.newSession
    next = { ...next, session: names.session, ticket: yield* authority.ticket({ ...names, ...keys }) }
    join(client, names.clientTag, connector)
    join(connector, names.connectorTag, client)
    yield* there.sessions.onSignal({ _tag: "Invite", ...next })
    return names.session
  })
  /** The connector's host is gone: nothing comes from it any more, and a flow waits for an answer. */
  const silence = Effect.gen(function*() {
    connector.carriers.delete(tagFromHex(names.connectorTag))
    yield* settle // what is under way arrives
    here.sessions.get(session)?.peer.expectAnswer()
  })
  /** Moves the client's clock on, one tick a second. Answers with why the session ended, if it did. */
  const pass = (seconds: number) =>
    Effect.gen(function*() {
      for (let second = 0; second < seconds; second++) {
        time.aheadMs += 1_000
        yield* here.sessions.tick
        yield* settle // the relay's answer comes
      }
      return here.sessions.get(session) === undefined ? "ended" : "alive"
    })
  /** Time passes for the grants of both ends, and each looks after its sessions. */
  const age = (seconds: number) =>
    Effect.gen(function*() {
      host.aheadMs += seconds * 1_000
      yield* Effect.all([there.sessions.tick, here.sessions.tick])
      yield* settle
      yield* settle
      return {
        client: here.sessions.get(session) === undefined ? "ended" : "alive",
        connector: there.sessions.get(session) === undefined ? "ended" : "alive"
      }
    })
  const setReached = (reached: boolean) =>
    Effect.suspend(() => {
      directory.reach = { reached, sinceMs: connector.hostMs() }
      return reached ? Effect.zipRight(there.sessions.onReturn, here.sessions.onReturn) : Effect.void
    })
  /** Moves the client's clock on at once, by less than a session without flows lives. */
  const leap = (seconds: number) =>
    Effect.sync(() => {
      time.aheadMs += seconds * 1_000
      here.sessions.get(session)?.openFlow({ kind: "tcp", host: "echo", port: 80, traceparent: null }, () => undefined)
    }).pipe(Effect.zipRight(here.sessions.tick))
  const key = connector.key
  return {
    here,
    there,
    session,
    ticket,
    documents,
    renewed,
    silence,
    pass,
    leap,
    relayKnows,
    time,
    dials,
    addOther,
    inviteAgain,
    declined,
    key,
    age,
    directory,
    host,
    setReached
  }
})

/** Some turns of the event loop, which all that is under way between two nodes here needs. */
const settle = Effect.promise(async () => {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => void setImmediate(resolve))
})

const until = (done: () => boolean) =>
  Effect.suspend(() => done() ? Effect.void : Effect.fail("not yet")).pipe(
    Effect.retry({ times: 12_000, schedule: Schedule.spaced("10 millis") }),
    Effect.orDie
  )

const listOf = (port: number) => [Candidate.make("srflx", { host: "198.51.100.1", port })]

describe("the sessions of a node", () => {
  it.scopedLive("are reported to a restarted prober with the newest candidates", () =>
    Effect.gen(function*() {
      const { here, session, there } = yield* setup
      assert.deepStrictEqual(there.sessions.snapshot().map(({ _tag }) => _tag), ["SessionUp", "Traffic"])
      const peer = here.sessions.get(session)!.peer
      for (const seq of [7, 5]) {
        peer.sendOnAllPaths({ _tag: "Candidates", seq, list: listOf(4_000 + seq), mapping: "steady" })
        yield* until(() => there.events.some((event) => event._tag === "PeerCandidates" && event.seq === seq))
      }
      const [up, , candidates] = there.sessions.snapshot()
      assert.strictEqual(up?._tag, "SessionUp")
      const { list, mapping, seq } = there.events.find((it) => it._tag === "PeerCandidates")!
      assert.deepStrictEqual(candidates, { _tag: "PeerCandidates", session, seq, list, mapping })
      assert.strictEqual(seq, 7, "an older list that came late is no newer one")
    }))

  it.scopedLive("tell the prober when their data stops and moves again", () =>
    Effect.gen(function*() {
      const { here, session } = yield* setup
      const told = () => here.events.flatMap((it) => (it._tag === "Traffic" ? [it.moving] : []))
      const tick = Effect.zipRight(settle, here.sessions.tick)
      yield* Effect.repeat(tick, { until: () => told().length > 0, schedule: Schedule.spaced("10 millis") })
      yield* Effect.repeatN(tick, 3)
      assert.deepStrictEqual(told(), [false])
      assert.deepInclude(here.sessions.snapshot(), { _tag: "Traffic", session, moving: false })
      const flow = { kind: "tcp", host: "echo", port: 80, traceparent: null } as const
      here.sessions.get(session)?.openFlow(flow, () => undefined)
      yield* until(() => told().length === 2)
      assert.deepStrictEqual(told(), [false, true])
    }))

  it.scopedLive("end when their connector left the relay and is silent", () =>
    Effect.gen(function*() {
      const { pass, relayKnows, silence } = yield* setup
      yield* silence
      relayKnows.presence = "absent"
      assert.strictEqual(yield* pass(12), "ended")
    }))

  it.scopedLive("live on while the relay itself has just started", () =>
    Effect.gen(function*() {
      const { pass, relayKnows, silence } = yield* setup
      yield* silence
      relayKnows.presence = "unknown"
      assert.strictEqual(yield* pass(40), "alive")
    }))

  it.scopedLive("end soon when another connector serves instead", () =>
    Effect.gen(function*() {
      const { addOther, here, pass, session, silence } = yield* setup
      const other = yield* addOther
      here.sessions.get(session)?.openFlow({ ...TARGET, traceparent: null }, () => undefined)
      yield* silence
      yield* pass(3) // another connector is dialled
      yield* until(() => here.sessions.get(other)?.peer.up === true)
      assert.strictEqual(yield* pass(10), "ended")
      assert.isDefined(here.sessions.get(other))
    }))

  it.scopedLive("are dialled at the silent connector last", () =>
    Effect.gen(function*() {
      const { dials, here, key, silence, time } = yield* setup
      yield* silence
      time.aheadMs += 1_000
      yield* Effect.forkScoped(Effect.ignore(here.sessions.obtain(TARGET)))
      yield* until(() => dials.length === 3)
      assert.deepStrictEqual(dials, [[], [key], []])
    }))

  it.scopedLive("leave waiting flows to another connector after a second", () =>
    Effect.gen(function*() {
      const { addOther, here, session, silence, time } = yield* setup
      const other = yield* addOther
      const waiting = yield* Effect.fork(here.sessions.elsewhere(here.sessions.get(session)!, TARGET))
      yield* silence
      time.aheadMs += 1_000
      assert.strictEqual((yield* Fiber.join(waiting)).id, other)
    }))

  it.scopedLive("keep waiting flows while there is no other connector", () =>
    Effect.gen(function*() {
      const { dials, here, key, session, silence, time } = yield* setup
      const waiting = yield* Effect.fork(here.sessions.elsewhere(here.sessions.get(session)!, TARGET))
      yield* silence
      time.aheadMs += 1_000
      yield* until(() => dials.length === 2)
      yield* settle
      assert.strictEqual((yield* Fiber.poll(waiting))._tag, "None")
      for (const exclude of dials.slice(1)) assert.deepStrictEqual(exclude, [key])
      yield* Fiber.interrupt(waiting)
    }))

  it.scopedLive("come back to a connector that no longer drains", () =>
    Effect.gen(function*() {
      const { declined, dials, here, inviteAgain, session, there } = yield* setup
      const old = here.sessions.get(session)!
      assert.deepStrictEqual(there.sessions.setDraining(true), { sessions: 1, flows: 0 })
      yield* until(() => old.isLeaving)
      yield* inviteAgain
      yield* until(() => declined.length === 1)
      assert.deepStrictEqual(declined, [DRAINING])
      there.sessions.setDraining(false)
      const second = yield* inviteAgain
      const before = dials.length
      for (let flow = 0; flow < 3; flow++) {
        assert.strictEqual((yield* Effect.orDie(here.sessions.obtain(TARGET))).id, second)
      }
      assert.strictEqual(dials.length, before + 1, "later flows need no dial")
      assert.isTrue(old.peer.up, "the old session goes on for its flows")
    }))

  it.scopedLive("survive when their connector left the relay but answers", () =>
    Effect.gen(function*() {
      const { pass, relayKnows } = yield* setup
      relayKnows.presence = "absent"
      assert.strictEqual(yield* pass(40), "alive")
    }))

  it.scopedLive("end when the relay says that the connector was restarted", () =>
    Effect.gen(function*() {
      const { here, session } = yield* setup
      yield* here.sessions.onSignal({ _tag: "SessionLost", session })
      assert.strictEqual(here.sessions.get(session), undefined)
    }))

  it.scopedLive("keep a ticket at both ends through many rule changes", () =>
    Effect.gen(function*() {
      const { documents, here, leap, renewed, session, there, ticket } = yield* setup
      const steps = 3 * NORMAL.ticket / STEP_SECONDS
      for (let step = 0; step < steps; step++) {
        const before = renewed.length
        yield* leap(STEP_SECONDS)
        // A rule changes: with each change comes a grant, which is never old enough to be renewed.
        yield* here.sessions.onSignal({ _tag: "GrantReplaced", session, grant: (yield* documents).grant })
        yield* until(() => renewed.length === before || there.opened.length === 1 + renewed.length)
      }
      yield* until(() => renewed.length >= 5)
      yield* until(() => there.opened.length === 1 + renewed.length && here.opened.length === 1 + renewed.length)
      const expected = [ticket, ...renewed].map((one) => ({ session, ticket: one }))
      assert.deepStrictEqual(here.opened, expected)
      assert.deepStrictEqual(there.opened, expected)
      assert.notStrictEqual(here.sessions.get(session), undefined)
    }))

  it.scopedLive("are opened again at a RelayActor that restarts", () =>
    Effect.gen(function*() {
      const { here, session, there, ticket } = yield* setup
      for (const { opened, sessions } of [here, there]) {
        assert.deepStrictEqual(opened, [{ session, ticket }])
        yield* sessions.reopen
        assert.deepStrictEqual(opened, [{ session, ticket }, { session, ticket }])
      }
    }))
})

describe("sessions while the directory is not reached", () => {
  const ALIVE = { client: "alive", connector: "alive" }

  it.scopedLive("take flows for many lives of their grant", () =>
    Effect.gen(function*() {
      const { age, dials, here, renewed, session, setReached } = yield* setup
      yield* setReached(false)
      for (let life = 0; life < 3; life++) {
        assert.deepStrictEqual(yield* age(NORMAL.grant + 11), ALIVE)
        assert.strictEqual((yield* here.sessions.obtain(TARGET)).id, session)
      }
      assert.deepStrictEqual([dials.length, renewed.length], [1, 0])
    }))

  it.scopedLive("end when offlineAccess is over, or at once without", () =>
    Effect.gen(function*() {
      for (const seconds of [0, 3600]) {
        const { age, directory, setReached } = yield* setup
        yield* setReached(false)
        directory.offlineSeconds = seconds
        if (seconds > 0) assert.deepStrictEqual(yield* age(seconds - 60), ALIVE)
        assert.strictEqual((yield* age(NORMAL.grant + 11)).connector, "ended")
      }
    }))

  it.scopedLive("end with their grant while the directory is reached", () =>
    Effect.gen(function*() {
      const { age, directory } = yield* setup
      directory.answers = false
      assert.deepStrictEqual(yield* age(NORMAL.grant + 11), { client: "ended", connector: "ended" })
    }))

  it.scopedLive("are renewed by both ends at its return", () =>
    Effect.gen(function*() {
      const { age, renewed, setReached, there } = yield* setup
      yield* setReached(false)
      yield* age(NORMAL.ticket + 60) // the ticket has expired, too
      yield* setReached(true)
      assert.lengthOf(renewed, 1)
      assert.deepStrictEqual(yield* age(1), ALIVE)
      yield* until(() => renewed.length === 2)
      assert.deepStrictEqual(yield* age(RETURN_MS / 1000 + 1), ALIVE)
      assert.isAbove(there.sessions.all()[0]?.leftSeconds ?? 0, 0)
    }))

  it.scopedLive("get new rules at its return, and no flow besides", () =>
    Effect.gen(function*() {
      const { age, directory, session, setReached, there } = yield* setup
      yield* setReached(false)
      yield* age(2 * NORMAL.grant)
      assert.isTrue(there.sessions.get(session)?.permits(TARGET))
      directory.permits = false
      yield* setReached(true)
      assert.isFalse(there.sessions.get(session)?.permits(TARGET))
    }))

  it.scopedLive("end soon after its return if it renews nothing", () =>
    Effect.gen(function*() {
      const { age, directory, setReached } = yield* setup
      yield* setReached(false)
      yield* age(2 * NORMAL.grant)
      directory.answers = false
      yield* setReached(true)
      assert.deepStrictEqual(yield* age(RETURN_MS / 1000 - 5), ALIVE)
      assert.deepStrictEqual(yield* age(6), { client: "ended", connector: "ended" })
    }))

  it.scopedLive("are renewed by the connector, unless their client is gone", () =>
    Effect.gen(function*() {
      for (const [silentMs, renewals] of [[0, 1], [61_000, 0]] as const) {
        const { host, renewed, there } = yield* setup
        yield* settle
        yield* there.sessions.tick
        assert.lengthOf(renewed, 0)
        // The client has not renewed the grant, which ends in 20 s.
        host.aheadMs += (NORMAL.grant - 20) * 1_000
        host.connectorNowMs += silentMs
        yield* there.sessions.tick
        yield* settle
        assert.lengthOf(renewed, renewals)
        assert.strictEqual((there.sessions.all()[0]?.leftSeconds ?? 0) > NORMAL.grant - 60, renewals === 1)
      }
    }))
})
