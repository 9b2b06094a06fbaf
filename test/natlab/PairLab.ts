/** A lab whose two networks change while its relay stays: what a client and a connector, started anew behind each, come to. */
import { Duration, Effect, Schedule, type Scope } from "effect"
import type { Peer } from "../../src/roles/Running.ts"
import * as Lab from "./Lab.ts"
import * as NatPairs from "./NatPairs.ts"

export interface Outcome {
  readonly pair: string
  readonly expected: NatPairs.Reach
  /** `none`: not connected, and `reason` says what went wrong. */
  readonly path: string
  readonly reason: string
  /** The peer's address on a direct path. */
  readonly remote: string | null
  /** From the start of curl; a request that has the session made. */
  readonly firstByteMs: number | null
  /** After the first byte; 0: it was direct by then. Null: relayed. */
  readonly toDirectMs: number | null
  /** Of each byte of a file, what crossed the relay's access link, in and out together. */
  readonly relayBytesPerByte: number | null
}

/** Of a file's bytes on the relay's link: a few acknowledgements on a direct path, and relayed each byte in and out. */
const DIRECT_AT_MOST = 0.1
const RELAYED_AT_LEAST = 1.9
/** Whether the file went the way that the client tells. */
export const isTrue = ({ path, relayBytesPerByte: share }: Outcome): boolean =>
  share !== null && (path === "direct" ? share <= DIRECT_AT_MOST : share >= RELAYED_AT_LEAST)

/** What can share a lab. */
export type Topology = "plain" | "cgn" | "same-nat" | "v6"
export const topologyOf = ({ client }: NatPairs.Pair): Topology =>
  client === "cgn" || client === "same-nat" ? client : client === "v6-firewall" ? "v6" : "plain"

const OPTIONS: Readonly<Record<Topology, Lab.Options>> = {
  plain: {},
  cgn: { clientCgn: "port-restricted" },
  "same-nat": { sameNat: true },
  v6: { v6: true }
}
/** A lab for pairs of one topology, in which only the relay runs. */
export const make = (topology: Topology): Effect.Effect<Lab.Lab, Lab.LabFailed, Scope.Scope> =>
  Lab.make({ ...OPTIONS[topology], relayOnly: true })

const natOf = (side: NatPairs.Side): Lab.Nat =>
  side === "v6-firewall" ? "symmetric" : side === "cgn" || side === "same-nat" ? "port-restricted" : side

/** A round of probes takes eight seconds; its end is the reason of those that stay relayed. */
const SETTLED_DEADLINE = Duration.seconds(60)
/** Before that, a reason may be one of the beginning. */
const ASK_AFTER = Duration.seconds(3)
const ASK_EVERY = Duration.millis(200)
/** The log tells a path before the status does; and one that was just found may be left once more. */
const TOLD_AFTER = Duration.seconds(1)
const TRIAL_DEADLINE = Duration.minutes(4)
/** How long a pair that must be direct may be relayed for a moment, because a busy host answers late. */
const DIRECT_AGAIN = Duration.seconds(60)
const UNSETTLED: ReadonlySet<string> = new Set(["", "probing", "relay_first"])
/** Whether it says why a path is what it is, rather than that this is still open. A relayed one may bear a remark behind it. */
export const isSettled = (reason: string): boolean => !UNSETTLED.has(reason.split(" ")[0]!)

/** Never fails: what goes wrong is the outcome. Leaves no node running. */
export const trial = (lab: Lab.Lab, pair: NatPairs.Pair): Effect.Effect<Outcome> => {
  const base = { pair: NatPairs.nameOf(pair), expected: NatPairs.expected(pair) }
  const failed = (reason: string): Outcome => ({ ...base, ...NOTHING, path: "none", reason })
  return Effect.scoped(attempt(lab, pair)).pipe(
    Effect.map((found): Outcome => ({ ...base, ...found })),
    Effect.catchTag("LabFailed", ({ message }) => Effect.succeed(failed(message))),
    Effect.timeoutTo({
      duration: TRIAL_DEADLINE,
      onSuccess: (outcome) => outcome,
      onTimeout: () => failed("not done in time")
    })
  )
}

const NOTHING = { remote: null, firstByteMs: null, toDirectMs: null, relayBytesPerByte: null }
type Found = Omit<Outcome, "pair" | "expected">

const attempt = (lab: Lab.Lab, pair: NatPairs.Pair): Effect.Effect<Found, Lab.LabFailed, Scope.Scope> =>
  Effect.gen(function*() {
    yield* lab.net("nat", "client", natOf(pair.client))
    yield* lab.net("nat", "connector", natOf(pair.connector))
    yield* Effect.all([lab.start("client"), lab.start("connector")], { concurrency: 2 })

    const first = yield* got(lab, "/")
    yield* Effect.scoped(Effect.zipRight(lab.begin("/drip"), untilSettled(lab))) // paths are compared while data flows
    const mustBeDirect = NatPairs.expected(pair) === "direct"
    const isFinal = ({ path, reason }: Peer) => path === "direct" || (!mustBeDirect && isSettled(reason))
    const peer = yield* lab.untilPeer(isFinal).pipe(
      Effect.timeout(DIRECT_AGAIN),
      Effect.delay(TOLD_AFTER),
      Effect.orElse(() => lab.peer)
    )
    const before = yield* lab.relayBytes
    yield* got(lab, "/file")
    const relayBytesPerByte = ((yield* lab.relayBytes) - before) / Lab.FILE_BYTES
    const direct = peer.path === "direct" ? movedAtMs(lab) : null
    return {
      path: peer.path,
      reason: peer.reason,
      remote: direct === null ? null : remoteOf(lab),
      firstByteMs: first.firstByteMs,
      toDirectMs: direct === null || first.firstByteAtMs === null ? null : Math.max(0, direct - first.firstByteAtMs),
      relayBytesPerByte
    }
  })

const got = (lab: Lab.Lab, path: string) =>
  Effect.filterOrFail(
    lab.fetch(path),
    ({ code, sha256 }) => code === 0 && (path !== "/file" || sha256 === Lab.FILE_SHA256),
    ({ code }) => new Lab.LabFailed({ message: code === 0 ? "the file came damaged" : `curl ended with ${code}` })
  )

/** Not one that is about to end: a direct path is slower now, or was chosen and is being moved to. */
const isReason = (reason: string) => isSettled(reason) && !reason.startsWith("direct_")

/**
 * Direct by the client's log, or relayed for a reason that time does not change, as a better round trip does; a pair that is
 * neither by the deadline is told as what it is then.
 */
const untilSettled = (lab: Lab.Lab) => {
  const direct = Effect.sync(() => movedAtMs(lab)).pipe(
    Effect.filterOrFail((at) => at !== null, () => "not yet"),
    Effect.retry(Schedule.spaced("20 millis"))
  )
  const reasoned = lab.peer.pipe(
    Effect.filterOrFail(({ path, reason }) => path === "direct" || isReason(reason), () => "not yet"),
    Effect.retry(Schedule.spaced(ASK_EVERY)),
    Effect.delay(ASK_AFTER)
  )
  return Effect.ignore(Effect.timeout(Effect.raceFirst(direct, reasoned), SETTLED_DEADLINE))
}

/** When the client's packets first took a direct path, by its own log: since 1970. */
const movedAtMs = (lab: Lab.Lab): number | null => {
  const line = lab.log("client").find((it) => it.includes("\"path selected\"") && it.includes("\"path\":\"direct\""))
  return line === undefined ? null : Date.parse((JSON.parse(line) as { readonly timestamp: string }).timestamp)
}

/** The last one. */
const remoteOf = (lab: Lab.Lab): string | null => {
  const line = lab.log("client").findLast((it) => it.includes("\"path changed\""))
  return line === undefined
    ? null
    : (JSON.parse(line) as { readonly annotations: { readonly path: string } }).annotations.path
}
