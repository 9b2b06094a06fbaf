/**
 * Chooses the path of each session. There is one `PathMachine` for a session. It learns what the
 * data plane saw and this host's candidates, and the actor carries out its orders by calls to the
 * data plane. Sessions live in the data plane and not here, so after a restart each machine
 * continues from the path in use.
 */
import { Clock, Deferred, Duration, Effect, Layer, Mailbox, Match, PubSub, Schema, Stream } from "effect"
import * as HostName from "../../protocol/bytes/HostName.ts"
import * as MappingLifetime from "../../protocol/nat/MappingLifetime.ts"
import { GuessBudget } from "../../protocol/path/GuessBudget.ts"
import * as PathGuessing from "../../protocol/path/PathGuessing.ts"
import type { LegKind } from "../../protocol/path/PathKind.ts"
import { KEEPALIVE_MS, PathMachine } from "../../protocol/path/PathMachine.ts"
import { MIN_PING_BYTES } from "../../protocol/path/PathMessage.ts"
import { type Decision, keyOf, viaRelay } from "../../protocol/path/PathRef.ts"
import { PortGuess } from "../../protocol/path/PortGuess.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import { StreamMux } from "../mux/StreamMuxRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import * as Inbox from "../runtime/actor/Inbox.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import { type LocalCandidates, type NetworkChange, Stun } from "../stun/StunRpcs.ts"
import {
  type Decided,
  type PathEvent,
  PathProber,
  PathProberRpcs,
  type Pinged,
  PingFailed,
  type SessionPath
} from "./PathProberRpcs.ts"

/** Most messages that may wait. When the inbox is full, the data plane's events wait. */
const INBOX_CAPACITY = 1024
/**
 * Most orders to the data plane that may wait. When it is full, the data plane is stuck, and
 * further orders are dropped and logged.
 */
const OUTBOX_CAPACITY = 2048
/**
 * How many orders are sent to the data plane at the same time, because each waits for its answer.
 */
const OUTBOX_CONCURRENCY = 64
/** How long an order may take. A ping that is older tells nothing any more. */
const ORDER_DEADLINE = Duration.seconds(1)
/**
 * How often an order is repeated that selects a path or closes the sockets of port guessing. If it
 * still fails, only a later decision can correct that.
 */
const SELECT_RETRIES = 2
/** How many decisions a slow subscriber may fall behind. Then it loses the oldest. */
const DECIDED_CAPACITY = 256
/** How long a caller's ping waits for an answer, for example that of `sallyport ping`. */
const PING_DEADLINE = Duration.seconds(2)
/** Most pings of callers that may wait for an answer. One more drops the oldest. */
const MAX_PINGS = 64
const TX_BYTES = 8
const TX_PREFIX_BYTES = 4
const SEED_BYTES = 4
/**
 * Added to the seed of port guessing for each next seed. Its multiples, modulo 2^32, visit all
 * 32-bit numbers.
 */
const GOLDEN = 0x9e3779b9
/**
 * Unit of the sequence numbers of candidate lists. They start from the time at which the machine
 * was made, so that the lists of a later machine are newer. 32 bits last for 34 years.
 */
const SEQ_UNIT_MS = 250
/** Time at which sequence numbers are 0: 2026-01-01. */
const SEQ_EPOCH_MS = 1_767_225_600_000

type Session = {
  readonly machine: PathMachine
  readonly guess: PortGuess
  readonly peer: string
  wakeAt: number | null
}
/** Something that happened to a session. It calls `machine` and returns the outputs. */
type Input = (machine: PathMachine, now: number, guess: PortGuess) => ReadonlyArray<PathGuessing.Output>
type Order =
  | Exclude<PathGuessing.Output, { readonly _tag: "Wake" | "Decided" }>
  | { readonly _tag: "Keep"; readonly reason: Decision["reason"] }
type Letter = { readonly session: string; readonly order: Order }
type Message =
  | { readonly _tag: "Event"; readonly event: PathEvent }
  /** A new incarnation of the data plane is up. It has none of the previous one's sessions. */
  | { readonly _tag: "Reset" }
  | { readonly _tag: "Local"; readonly local: LocalCandidates }
  | { readonly _tag: "NetworkChanged"; readonly lost: NetworkChange["lost"] }
  | { readonly _tag: "Wake"; readonly session: string }
  | { readonly _tag: "Paths"; readonly reply: Inbox.Reply<ReadonlyArray<SessionPath>> }
  | { readonly _tag: "Ping"; readonly peer: string; readonly reply: Inbox.Reply<Pinged, PingFailed> }
  | { readonly _tag: "Decisions"; readonly session: string; readonly reply: Inbox.Reply<ReadonlyArray<Decision>> }

const make = Effect.gen(function*() {
  const mux = yield* Peers.ref(StreamMux)
  const stun = yield* Peers.ref(Stun)
  const { randomHex } = yield* Crypto.Crypto
  const outbox = yield* Mailbox.make<Letter>({ capacity: OUTBOX_CAPACITY, strategy: "dropping" })
  /**
   * Signals that the number of sessions or their activity may have changed. The StunActor is then
   * notified of the counts at that moment.
   */
  const activity = yield* Mailbox.make<null>({ capacity: 1, strategy: "sliding" })
  const decided = yield* PubSub.sliding<Decided>(DECIDED_CAPACITY)
  const sessions = new Map<string, Session>()
  /** Pings of callers that wait for an answer, by transaction id. */
  const pings = new Map<string, Inbox.Reply<Pinged, PingFailed>>()
  const budget = new GuessBudget(yield* nowMs)
  let local: LocalCandidates | null = null
  let leg: LegKind = "relay-udp"
  /** Names of the other relays at which this node is bound. */
  const otherRelays = new Set<string>()

  const obey = (letter: Letter) => {
    const { order, session } = letter
    const retries = order._tag === "Select" || order._tag === "CloseGuess" ? SELECT_RETRIES : 0
    return mux.ask((it) => {
      switch (order._tag) {
        case "SendPing":
          return it.SendPing({ session, path: order.path, txId: order.txId, padTo: order.padTo })
        case "SendCandidates":
          return it.SendCandidates({ session, seq: order.seq, list: order.list, mapping: order.mapping })
        case "Select":
          return it.SelectPath({ session, path: order.path, reason: order.reason })
        case "Keep":
          return it.KeepPath({ session, reason: order.reason })
        case "SetPacketSize":
          return it.SetPacketSize({ session, path: order.path, bytes: order.bytes })
        case "AskRead":
          return it.AskRead({ session })
        case "RequestSwitch":
          return it.RequestSwitch({ session, reason: order.reason })
        case "SampleGuess":
          return it.SampleGuess({ session, count: order.count })
        case "OpenGuess":
          return it.OpenGuess({ session, to: order.to, count: order.count })
        case "CloseGuess":
          return it.CloseGuess({ session })
        case "SendGuesses":
          return it.SendGuesses({ session, to: order.to })
        case "TellOpened":
          return it.TellOpened({ session, opened: order.opened })
      }
    }, { deadline: ORDER_DEADLINE }).pipe(
      Effect.retry({ times: retries }),
      Effect.catchTag(
        "ActorUnavailable",
        (error) => Effect.logDebug("the data plane did not carry out an order", order._tag, error)
      )
    )
  }
  const tell = Effect.fnUntraced(function*(session: string, peer: string, decision: Decision, now: number) {
    yield* decided.offer({ session, peer, decision: dated(decision, (yield* Clock.currentTimeMillis) - now) })
    yield* (decision.moved ? Effect.logInfo("path changed") : Effect.logDebug("path kept")).pipe(
      Effect.annotateLogs({ session, path: keyOf(decision.chosen), reason: decision.reason })
    )
  })
  const run = Effect.fnUntraced(
    function*(id: string, input: Input) {
      const session = sessions.get(id)
      if (session === undefined) return
      const { guess, machine } = session
      const now = yield* nowMs
      const before = guess.reason
      for (const output of PathGuessing.follow(machine, guess, input(machine, now, guess), now)) {
        if (output._tag === "Wake") {
          yield* wake(id, session, output.at, now)
          continue
        }
        if (output._tag === "Decided") yield* tell(id, session.peer, output.decision, now)
        const order = output._tag === "Decided" ? keepOf(output.decision) : output
        if (order !== null && !(yield* outbox.offer({ session: id, order }))) {
          yield* Effect.logWarning("order dropped", order._tag)
        }
      }
      if (guess.reason !== before) {
        yield* Effect.logInfo("port guessing").pipe(
          Effect.annotateLogs({ session: id, state: guess.reason ?? "over", probes: guess.probes })
        )
      }
    }
  )
  const wake = (id: string, session: Session, at: number | null, now: number) => {
    if (session.wakeAt === at) return Effect.void
    session.wakeAt = at
    return at === null
      ? inbox.clearTimer(id)
      : inbox.setTimer(id, Math.max(0, Math.ceil(at - now)), { _tag: "Wake", session: id })
  }
  const forget = Effect.fnUntraced(function*(id: string) {
    sessions.get(id)?.guess.stop()
    if (sessions.delete(id)) yield* inbox.clearTimer(id)
    yield* activity.offer(null)
  })
  const begin = Effect.fnUntraced(function*(event: Extract<PathEvent, { readonly _tag: "SessionUp" }>) {
    const epochMs = yield* Clock.currentTimeMillis
    const machine = new PathMachine({
      role: event.role,
      now: yield* nowMs,
      path: event.path,
      active: event.active,
      txPrefix: yield* randomHex(TX_PREFIX_BYTES),
      firstSeq: Math.max(0, Math.floor((epochMs - SEQ_EPOCH_MS) / SEQ_UNIT_MS))
    })
    let seed = Number.parseInt(yield* randomHex(SEED_BYTES), 16)
    const guess = new PortGuess({ budget, nextSeed: () => (seed = (seed + GOLDEN) >>> 0) })
    sessions.set(event.session, { machine, guess, peer: event.peer, wakeAt: null })
    yield* activity.offer(null)
    yield* run(event.session, (it, now) => it.onRelayBound(leg, now))
    for (const name of otherRelays) {
      yield* run(event.session, (it, now) => it.onOtherRelayBound(viaRelay(name), now))
    }
    const mine = local
    if (mine !== null) yield* run(event.session, offer(mine))
  })
  const forAll = (input: Input) => Effect.forEach([...sessions.keys()], (id) => run(id, input), { discard: true })
  const onEvent: (event: PathEvent) => Effect.Effect<void> = Match.type<PathEvent>().pipe(Match.tagsExhaustive({
    SessionUp: begin,
    SessionDown: ({ session }) => forget(session),
    PeerCandidates: ({ list, mapping, seq, session }) =>
      run(session, (it, now, guess) => {
        guess.onPeer(mapping ?? null, list, now)
        return it.onPeerCandidates(seq, list, now)
      }),
    CandidatesAcked: ({ seq, session }) => run(session, (it, now) => it.onCandidatesAcked(seq, now)),
    PingSeen: ({ path, session }) =>
      run(session, (it, now, guess) => {
        guess.onPing(path)
        return it.onPing(path, now)
      }),
    Pong: ({ path, rttMs, session, txId }) => {
      const reply = pings.get(txId)
      const machine = sessions.get(session)?.machine
      if (reply === undefined || machine === undefined) {
        return run(session, (it, now) => it.onPong(path, txId, rttMs, now))
      }
      pings.delete(txId)
      return Deferred.succeed(reply, { session, path, rttMs, reason: machine.reason })
    },
    SocketsRead: ({ session }) => run(session, (it, now) => it.onRead(now)),
    Heard: ({ path, session }) => run(session, (it, now) => it.onHeard(path, now)),
    Activity: ({ active, session }) =>
      Effect.zipRight(run(session, (it, now) => it.onActivity(active, now)), activity.offer(null)),
    Traffic: ({ moving, session }) => run(session, (it, now) => it.onTraffic(moving, now)),
    PathError: ({ path, session }) => run(session, (it, now) => it.onPathError(path, now)),
    PeerSelected: ({ path, session }) => run(session, (it, now) => it.onSelectedByPeer(path, now)),
    SwitchRequested: ({ reason, session }) => run(session, (it, now) => it.onSwitchRequested(reason, now)),
    GuessSampled: ({ local, mapped, session }) =>
      run(session, (it, now, guess) => {
        guess.onSample({ local, mapped })
        return it.onTick(now)
      }),
    GuessRefused: ({ code, count, session }) =>
      Effect.zipRight(
        Effect.logWarning("no more sockets for port guessing").pipe(Effect.annotateLogs({ session, code })),
        run(session, (it, now, guess) => {
          guess.onRefused(count)
          return it.onTick(now)
        })
      ),
    PeerOpened: ({ opened, session }) =>
      run(session, (it, now, guess) => {
        guess.onOpened(opened)
        return it.onTick(now)
      }),
    RelayLeg: ({ kind }) => {
      if (kind === null) return Effect.void
      leg = kind
      return forAll((it, now) => it.onRelayBound(kind, now))
    },
    OtherRelay: ({ bound, name }) => {
      if (!bound) return Effect.sync(() => void otherRelays.delete(name))
      otherRelays.add(name)
      return forAll((it, now) => it.onOtherRelayBound(viaRelay(name), now))
    }
  }))
  const ping = Effect.fnUntraced(function*(peer: string, reply: Inbox.Reply<Pinged, PingFailed>) {
    const [id, session] = [...sessions].findLast(([, it]) => HostName.isSame(it.peer, peer)) ?? []
    if (id === undefined || session === undefined) return yield* Deferred.fail(reply, noSession(peer))
    const txId = yield* randomHex(TX_BYTES)
    const [oldest] = pings.keys()
    if (pings.size >= MAX_PINGS && oldest !== undefined) pings.delete(oldest)
    pings.set(txId, reply)
    yield* outbox.offer({
      session: id,
      order: { _tag: "SendPing", path: session.machine.path, txId, padTo: MIN_PING_BYTES }
    })
    return yield* run(id, (machine, now) => machine.onAsked(now))
  })
  const handle: (message: Message) => Effect.Effect<void> = Match.type<Message>().pipe(Match.tagsExhaustive({
    Event: ({ event }) => onEvent(event),
    Reset: () => {
      otherRelays.clear()
      return Effect.forEach([...sessions.keys()], forget, { discard: true })
    },
    Local: (message) => {
      local = message.local
      return forAll(offer(message.local))
    },
    NetworkChanged: ({ lost }) =>
      forAll((it, now, guess) => {
        guess.onNetworkChange()
        return it.onNetworkChange(now, lost)
      }),
    Wake: ({ session }) => {
      const it = sessions.get(session)
      if (it !== undefined) it.wakeAt = null
      return run(session, (machine, now) => machine.onTick(now))
    },
    Paths: ({ reply }) =>
      Effect.flatMap(clocks, (at) => Deferred.succeed(reply, [...sessions].map(([id, it]) => describe(id, it, at)))),
    Ping: ({ peer, reply }) => ping(peer, reply),
    Decisions: ({ reply, session }) =>
      Effect.flatMap(clocks, ({ epochMs, now }) => {
        const history = sessions.get(session)?.machine.history ?? []
        return Deferred.succeed(reply, history.map((it) => dated(it, epochMs - now)))
      })
  }))
  const inbox = yield* Inbox.make<Message>({ name: "pathProber", capacity: INBOX_CAPACITY, handle })

  yield* Self.fork(
    Stream.runDrain(
      Stream.mapEffect(Mailbox.toStream(outbox), obey, { concurrency: OUTBOX_CONCURRENCY, unordered: true })
    )
  )
  const reset: Message = { _tag: "Reset" }
  yield* Self.fork(
    mux.subscribe((it) =>
      Stream.concat(Stream.succeed(reset), Stream.map(it.PathEvents(), (event): Message => ({ _tag: "Event", event })))
    ).pipe(Stream.runForEach(inbox.post))
  )
  yield* Self.fork(
    Stream.runForEach(stun.subscribe((it) => it.Candidates()), (local) => inbox.post({ _tag: "Local", local }))
  )
  yield* Self.fork(
    Stream.runForEach(
      stun.subscribe((it) => it.NetworkChanges()),
      ({ lost }) => inbox.post({ _tag: "NetworkChanged", lost })
    )
  )
  const counts = () => ({
    count: sessions.size,
    flowing: [...sessions.values()].filter(({ machine }) => machine.active).length
  })
  const told = Stream.merge(
    Stream.changesWith(
      Stream.map(Mailbox.toStream(activity), counts),
      (a, b) => a.count === b.count && a.flowing === b.flowing
    ),
    Stream.map(stun.incarnations, counts)
  )
  yield* Self.fork(
    Stream.runForEach(told, (now) =>
      stun.ask((it) => it.SetActiveSessions(now)).pipe(
        Effect.catchTag("ActorUnavailable", (error) =>
          Effect.logDebug("the actor stun could not be notified of the sessions", error))
      ))
  )
  return PathProberRpcs.of({
    Paths: () => inbox.ask<ReadonlyArray<SessionPath>>((reply) => ({ _tag: "Paths", reply })),
    Decisions: ({ session }) => inbox.ask<ReadonlyArray<Decision>>((reply) => ({ _tag: "Decisions", session, reply })),
    Decided: () => Stream.fromPubSub(decided),
    Ping: ({ peer }) =>
      inbox.askWithin<Pinged, PingFailed>(PING_DEADLINE, (reply) => ({ _tag: "Ping", peer, reply })).pipe(
        Effect.catchTag("TimeoutException", () => unanswered(peer))
      )
  })
})

const noSession = (peer: string) =>
  new PingFailed({
    reason: "no_session",
    message: `there is no session with ${peer}; open a flow to one of its resources first, and see: sallyport status`
  })
const unanswered = (peer: string) =>
  new PingFailed({
    reason: "unanswered",
    message: `${peer} did not answer within ${Duration.format(Duration.decode(PING_DEADLINE))}`
  })

const offer = ({ candidates, leftOut, lifetime, mapping, udp }: LocalCandidates): Input => (machine, now, guess) => {
  guess.onLocal(mapping ?? null)
  machine.onKeepalive(MappingLifetime.keepaliveMs(lifetime ?? null, KEEPALIVE_MS))
  return machine.onLocalCandidates(candidates, udp === "blocked", now, mapping, leftOut)
}

const describe = (session: string, { machine, peer }: Session, at: Clocks): SessionPath => ({
  session,
  role: machine.role,
  peer,
  path: machine.path,
  reason: machine.reason,
  rttMs: machine.rttMs(at.now),
  since: at.epochMs - at.now + machine.since,
  active: machine.active,
  seeking: machine.isSeeking(at.now),
  tried: machine.samples(at.now),
  decisions: machine.decisions
})

/** Returns the order that reports a kept path. A move has an order of its own. */
const keepOf = ({ moved, reason }: Decision): Order | null => (moved ? null : { _tag: "Keep", reason })

const dated = ({ atMs, chosen, moved, paths, reason }: Decision, epochOffsetMs: number): Decision => ({
  atMs: atMs + epochOffsetMs,
  paths,
  chosen,
  reason,
  moved
})

/** The same moment on both clocks, because machines know only the monotonic clock. */
type Clocks = { readonly epochMs: number; readonly now: number }
const clocks: Effect.Effect<Clocks> = Effect.all({ epochMs: Clock.currentTimeMillis, now: nowMs })

/** Layer of the actor. It needs the data plane and the StunActor as its peers. */
export const layer = PathProberRpcs.toLayer(make.pipe(Effect.annotateLogs({ actor: "pathProber" })))

/** The PathProberActor, for the runtime that starts it. */
export const actor = Actor.make({
  address: PathProber,
  config: Schema.Struct({}),
  uses: [StreamMux, Stun],
  layer: () => Layer.provide(layer, Crypto.layer)
})
