/**
 * Enrolment of a node, which comes before everything else. It happens once, with a token, over a
 * link of its own. Later starts need only the state directory.
 */
import { Effect, Either, Option, Redacted, Ref, Schedule, Schema } from "effect"
import { join } from "node:path"
import * as HostName from "../protocol/bytes/HostName.ts"
import { renderHostPort } from "../protocol/bytes/SocketAddr.ts"
import * as ProxyUrl from "../protocol/relay/ProxyUrl.ts"
import type { NodeRole } from "../protocol/trust/Documents.ts"
import * as EnrolmentToken from "../protocol/trust/EnrolmentToken.ts"
import * as Signed from "../protocol/trust/Signed.ts"
import { type ProxySetting, resolveToken, type TokenSource } from "../services/config/Config.ts"
import * as StateDir from "../services/host/StateDir.ts"
import * as StateFile from "../services/host/StateFile.ts"
import * as Enrolment from "../services/identity/Enrolment.ts"
import * as Keys from "../services/identity/Keys.ts"
import * as LinkClient from "../transport/link/LinkClient.ts"

/**
 * Error when the node cannot be enrolled, and another attempt with the same token will not help.
 */
export class EnrolFailed extends Schema.TaggedError<EnrolFailed>()("EnrolFailed", { message: Schema.String }) {}

/**
 * Waits between attempts to reach the relay: from 0.5 up to 10 seconds, without an end, because a
 * node may boot before its network.
 */
const RETRY = Schedule.exponential("500 millis").pipe(Schedule.either(Schedule.spaced("10 seconds")), Schedule.jittered)

/** The node to enrol. */
export interface Newcomer {
  readonly role: NodeRole
  readonly name: string
  /** State directory where the node's key and its enrolment are stored. */
  readonly stateDir: string
  readonly token: TokenSource | null
  readonly carrier: LinkClient.Options["carrier"]
  readonly proxy?: ProxySetting
  readonly ca?: string | null
  readonly onWaiting?: ((waiting: Waiting) => Effect.Effect<void>) | undefined
}

/** Why a node has not enrolled yet. */
export interface Waiting {
  /** The relay that the token names, as `host:port`. */
  readonly relay: string
  readonly problem: string
  /** The kind of `problem`: the `reason` of a `LinkError`. */
  readonly reason: string
  /** The proxy by which the relay is reached, without its login. `null` if there is none. */
  readonly proxy: string | null
}

/**
 * Returns the node's enrolment, from the state directory or by enrolling now. Fails if the state
 * directory belongs to a node with another role or name. Waits while its disk cannot be written.
 */
export const ensure = (config: Newcomer) => StateDir.patiently(config.stateDir, isOfFiles, ensureNow(config))

const isOfFiles = (error: object): boolean => "reason" in error && error.reason === "unusable"

/**
 * Loads the node's key. A new one is made only for a node that has never enrolled and has a token.
 */
const identityOf = Effect.fnUntraced(
  function*(config: Newcomer) {
    const { stateDir } = config
    const path = join(stateDir, Keys.NODE_KEY_FILE)
    if (yield* StateFile.exists(path)) {
      return yield* Effect.mapError(
        Keys.loadIdentity(stateDir),
        (error) =>
          error.reason === "damaged"
            ? new Keys.KeyFileError({
              path,
              reason: "damaged",
              message: `${error.message}, or move ${stateDir} away and enrol again`
            })
            : error
      )
    }
    const enrolment = join(stateDir, Enrolment.ENROLMENT_FILE)
    if (yield* StateFile.exists(enrolment)) {
      return yield* new Keys.KeyFileError({
        path,
        reason: "missing",
        message:
          `${stateDir} has ${Enrolment.ENROLMENT_FILE} but not ${Keys.NODE_KEY_FILE}; restore it from a backup, ` +
          `or remove ${enrolment} and enrol this node with a new token`
      })
    }
    yield* resolveToken(config)
    return yield* Effect.provide(Keys.NodeIdentity, Keys.layerNodeIdentity({ stateDir }))
  },
  Effect.catchTag("StateFileError", ({ message, path }) => new Keys.KeyFileError({ path, reason: "unusable", message }))
)

const ensureNow = Effect.fn("Enrol.ensure")(function*(config: Newcomer) {
  const { carrier, name, onWaiting = () => Effect.void, role, stateDir } = config
  const proxy = proxyText(config)
  const identity = yield* identityOf(config)
  const enrolments = Enrolment.make(stateDir)
  const known = yield* enrolments.load(identity.key)
  if (Option.isSome(known)) yield* tellProxy(known.value.relay, proxy)
  const enrolled = Option.isSome(known) ? known.value : yield* enrol()
  const { membership } = enrolled
  if (membership.role !== role || !HostName.isSame(membership.name, name)) {
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
      const shown = yield* tellProxy(relay, proxy)
      const told = yield* Ref.make("")
      const welcome = yield* Effect.scoped(Effect.map(
        LinkClient.connect({
          host: relay.host,
          port: relay.httpsPort,
          trust: relay.tls,
          carrier,
          proxy,
          ca: config.ca ?? null,
          purpose: "signal",
          identity,
          enrol: {
            tokenId: token.id,
            secret: Redacted.value(token.secret),
            name: HostName.normalize(name) ?? name,
            role
          }
        }),
        (connected) => connected.welcome
      )).pipe(
        // Each cause is logged as a warning once, not at every attempt.
        Effect.tapError(({ message, reason }) =>
          Effect.gen(function*() {
            const problem = `not enrolled yet${UNSENT.test(reason) ? ", and the token is not spent" : ""}: ${message}`
            const before = yield* Ref.getAndSet(told, problem)
            yield* before === problem ? Effect.logDebug(problem) : Effect.logWarning(problem)
            yield* onWaiting({
              relay: renderHostPort({ host: relay.host, port: relay.httpsPort }),
              problem,
              reason,
              proxy: shown
            })
          })
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

/**
 * Reasons of a `LinkError` that may pass without anybody touching this node: its network, the
 * relay, or something between them changes. A captive portal or a wrong clock is no reason to give
 * up: the token is sent only after the relay has proved its identity.
 */
const TRANSIENT: ReadonlySet<string> = new Set([
  "unreachable",
  "timed_out",
  "lost",
  "carrier_refused",
  "tls_failed",
  "tls_untrusted",
  "tls_intercepted",
  "proxy_refused"
])

/** The proxy setting as threads take it: the URL with its login, or `null` if it is not set. */
export const proxyText = ({ proxy }: { readonly proxy?: ProxySetting }): string | null =>
  proxy === null || proxy === undefined ? null : Redacted.value(proxy)

/** Reasons for which the token was not sent to anybody. */
const UNSENT = /^(tls|proxy)_|^unreachable$/

/**
 * Logs the proxy by which the relay is reached and returns it as text, or `null` if there is none.
 * Fails if the setting asks for a proxy that cannot be used.
 */
const tellProxy = Effect.fnUntraced(function*({ host, httpsPort }: Enrolment.Relay, setting: string | null) {
  const choice = LinkClient.proxyOf({ host, port: httpsPort, proxy: setting })
  if (choice._tag === "Unusable") return yield* new EnrolFailed({ message: choice.message })
  if (choice._tag === "Direct") return null
  const { from, proxy } = choice
  yield* Effect.logInfo("the relay is reached by a proxy").pipe(
    Effect.annotateLogs({ proxy: ProxyUrl.render(proxy), from })
  )
  if (proxy.oddity !== null) yield* Effect.logWarning(`the proxy's URL in ${from}: ${proxy.oddity}`)
  return `${ProxyUrl.render(proxy)} (${from})`
})
