/**
 * A client's dials. A flow takes a session that reaches its target, or a connector is asked for one
 * through the relay. Flows that wait for a silent connector find another one.
 */
import { Deferred, Duration, Effect, Either, Option } from "effect"
import type { Target, Verdict, VerdictCode } from "../../../protocol/flow/FlowWire.ts"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../../protocol/trust/Signed.ts"
import * as SharedDials from "../../../session/core/SharedDials.ts"
import type { FlowSession } from "../../../transport/plane/FlowSession.ts"
import type { RpcsOf } from "../../runtime/actor/ActorAddress.ts"
import type { ActorRef, ActorUnavailable } from "../../runtime/actor/ActorRef.ts"
import type { Dialed, DialRefused } from "../../signaling/RelaySignalingRpcs.ts"
import type { Signaling, SignalingDown } from "../../signaling/SignalingRpcs.ts"
import { type Held, type HeldSessions, isSilent, SILENT_MS } from "./HeldSessions.ts"
import type { Opened, SessionDocuments } from "./SessionDocuments.ts"

/**
 * How long a dial may take. It covers the relay's own deadline for a connector that does not
 * answer, after which the relay tries the next one.
 */
const DIAL_DEADLINE = Duration.seconds(8)
/**
 * Shortest time between two dials for another connector while flows wait for a silent one, if there
 * was none.
 */
const SEEK_EVERY_MS = 2_000
/** Shortest time between two looks at a session in which a flow waits. */
const LOOK_AFTER_MS = 50

/** Options of {@link make}. */
export interface Options {
  readonly held: HeldSessions
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  /** Succeeds when the directory's time is known. */
  readonly timeKnown: Effect.Effect<void>
  readonly documents: SessionDocuments
  /** Begins a session with the connector to which a dial has led. */
  readonly begin: (
    documents: Opened,
    ticket: Signed,
    target: Target,
    peerWritten: string | undefined
  ) => Effect.Effect<Held, { readonly message: string }>
}

/** Makes the dials of a client. */
export const make = ({ begin, documents, held, signaling, timeKnown }: Options) => {
  const askRelay = ({ host, kind, port }: Target, exclude: ReadonlyArray<NodeKey>) =>
    signaling.ask(
      (client) => client.Dial({ target: { host, port, protocol: kind }, exclude }),
      { deadline: DIAL_DEADLINE }
    )

  const dialAny = Effect.fn("StreamMux.dial")(function*(target: Target) {
    return yield* settle(yield* askRelay(target, []), target)
  })

  const dialOther = Effect.fn("StreamMux.dialOther")(function*(target: Target) {
    return yield* settle(yield* askRelay(target, held.silentPeers()), target)
  })

  /**
   * Makes a session of a dial's answer. If the dial led to a connector that already has a session,
   * it uses that session with the newer grant. A session in which the connector wanted no more
   * flows stays without new ones, also when the connector takes flows again.
   */
  const settle = Effect.fnUntraced(function*(dialed: Dialed, target: Target) {
    yield* Effect.timeoutOption(timeKnown, DIAL_DEADLINE)
    const opened = yield* Either.mapLeft(documents.open(dialed), internal)
    const known = held.withPeer(dialed.connectorKey)
    if (known !== undefined) {
      known.session.setGrant(opened.grant, dialed.grant, opened.outage)
      return yield* Deferred.await(known.up)
    }
    if (held.isFull) {
      return yield* Effect.fail<Verdict>({ code: "too_many_flows", reason: "no room for another session" })
    }
    const it = yield* Effect.mapError(
      begin(opened, dialed.ticket, target, dialed.connectorName),
      (error) => internal(error.message)
    )
    return yield* Deferred.await(it.up)
  })

  /** Lets flows to one target that arrive while it is being dialled share the dial. */
  const sharing = <E>(dial: (target: Target) => Effect.Effect<FlowSession, E>) =>
    SharedDials.make<FlowSession, E | Verdict>({
      find: (target) => held.reaching(target),
      dial,
      broken: () => internal("the dial was interrupted")
    })
  /** Obtains a session with a connector that is not silent. Fails if there is none. */
  const obtainOther = sharing(dialOther)
  /**
   * Dials a connector, first among those that are not silent. A silent one may have been restarted,
   * so it is asked if no other takes the session.
   */
  const dial = (target: Target): Effect.Effect<FlowSession, Verdict> =>
    Effect.suspend(() =>
      held.silentPeers().length === 0
        ? dialAny(target)
        : Effect.catchIf(obtainOther(target), isNone, () => dialAny(target))
    ).pipe(Effect.mapError(verdictOf))
  /** Obtains a session that may carry this flow. */
  const obtain = sharing(dial)

  /**
   * Waits until this session is silent and a session with another connector may carry the flow.
   * Returns that session. While there is no other connector, it waits on: the silent one may only
   * have a bad path.
   */
  const elsewhere = Effect.fnUntraced(function*(session: FlowSession, target: Target) {
    for (;;) {
      yield* Effect.sleep(Duration.millis(Math.max(LOOK_AFTER_MS, SILENT_MS - session.peer.silentMs)))
      if (!isSilent(session)) continue
      const other = yield* Effect.option(obtainOther(target))
      if (Option.isSome(other) && other.value !== session && isSilent(session)) return other.value
      if (Option.isNone(other)) yield* Effect.sleep(Duration.millis(SEEK_EVERY_MS))
    }
  })

  return { dial, elsewhere, obtain } as const
}

type DialError = DialRefused | SignalingDown | ActorUnavailable

/** Whether a dial failed because no connector took it. */
const isNone = (error: DialError | Verdict): boolean =>
  "_tag" in error && error._tag === "DialRefused" &&
  (error.code === "no_connector" || error.code === "connector_declined")

/** Verdict of a fault that is not the network's. */
export const internal = (reason: string): Verdict => ({ code: "internal", reason })

const DIAL_VERDICT: Readonly<Record<DialRefused["code"], VerdictCode>> = {
  name_not_found: "name_not_found",
  denied: "denied",
  port_not_listed: "port_not_listed",
  no_connector: "unreachable",
  connector_declined: "unreachable",
  overloaded: "unreachable"
}

const verdictOf = (error: DialError | Verdict): Verdict => {
  if (!("_tag" in error)) return error
  if (error._tag === "DialRefused") return { code: DIAL_VERDICT[error.code], reason: error.message }
  return { code: "unreachable", reason: error.message }
}
