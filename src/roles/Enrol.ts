/** Before anything else a node is enrolled: once, with a token, over a link of its own; after that its state directory suffices. */
import { Effect, Either, Option, Redacted, Schedule, Schema } from "effect"
import type { NodeRole } from "../protocol/Documents.ts"
import * as EnrolmentToken from "../protocol/EnrolmentToken.ts"
import * as Signed from "../protocol/Signed.ts"
import { resolveToken, type TokenSource } from "../services/config/Config.ts"
import * as HostPort from "../services/config/HostPort.ts"
import * as Enrolment from "../services/Enrolment.ts"
import { layerNodeIdentity, NodeIdentity } from "../services/Keys.ts"
import * as LinkClient from "../transport/link/LinkClient.ts"

/** The node cannot be enrolled, and trying again with the same token will not help. */
export class EnrolFailed extends Schema.TaggedError<EnrolFailed>()("EnrolFailed", { message: Schema.String }) {}

/** A relay that cannot be reached is tried again for ever: a node may well boot before its network. */
const RETRY = Schedule.exponential("500 millis").pipe(Schedule.either(Schedule.spaced("10 seconds")), Schedule.jittered)

export interface Newcomer {
  readonly role: NodeRole
  readonly name: string
  readonly stateDir: string
  readonly token: TokenSource | null
  readonly carrier: LinkClient.Options["carrier"]
  readonly onWaiting?: ((waiting: Waiting) => Effect.Effect<void>) | undefined
}

/** Why a node has not enrolled yet. */
export interface Waiting {
  /** The relay that the token names, as `host:port`. */
  readonly relay: string
  readonly problem: string
}

export const ensure = Effect.fn("Enrol.ensure")(function*(config: Newcomer) {
  const { carrier, name, onWaiting = () => Effect.void, role, stateDir } = config
  const identity = yield* Effect.provide(NodeIdentity, layerNodeIdentity({ stateDir }))
  const enrolments = Enrolment.make(stateDir)
  const known = yield* enrolments.load(identity.key)
  const enrolled = Option.isSome(known) ? known.value : yield* enrol()
  const { membership } = enrolled
  if (membership.role !== role || membership.name !== name) {
    return yield* new EnrolFailed({
      message:
        `${stateDir} belongs to ${membership.role} ${membership.name}, and the configuration says ${role} ${name}; ` +
        "correct the configuration, or give it another stateDir and a new token"
    })
  }
  return enrolled

  function enrol() {
    return Effect.gen(function*() {
      const text = yield* resolveToken(config)
      const token = yield* Either.mapLeft(
        EnrolmentToken.parse(Redacted.value(text)),
        (bad) => new EnrolFailed({ message: `the enrolment token is not usable: ${bad.message}` })
      )
      const relay = Enrolment.relayOf(token)
      const welcome = yield* Effect.scoped(Effect.map(
        LinkClient.connect({
          host: relay.host,
          port: relay.httpsPort,
          trust: relay.tls,
          carrier,
          purpose: "signal",
          identity,
          enrol: { tokenId: token.id, secret: Redacted.value(token.secret), name, role }
        }),
        (connected) => connected.welcome
      )).pipe(
        Effect.tapError((error) =>
          Effect.zipRight(
            Effect.logWarning(`not enrolled yet: ${error.message}`),
            onWaiting({
              relay: HostPort.render({ host: relay.host, port: relay.httpsPort }),
              problem: `not enrolled yet: ${error.message}`
            })
          )
        ),
        Effect.retry({ schedule: RETRY, while: ({ reason }) => TRANSIENT.has(reason) })
      )
      const signed = yield* Either.mapLeft(Signed.fromBytes(welcome), (message) => new EnrolFailed({ message }))
      const saved = yield* enrolments.save(identity.key, relay, signed)
      yield* Effect.logInfo("enrolled").pipe(Effect.annotateLogs({ name, relay: relay.host }))
      return saved
    })
  }
})

const TRANSIENT: ReadonlySet<string> = new Set(["unreachable", "timed_out", "lost", "carrier_refused", "tls_failed"])
