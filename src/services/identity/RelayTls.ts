/**
 * The relay's current TLS certificate. The relay either issues it with its own key and renews it
 * while running, or reads it from the operator's files.
 */
import { Clock, Context, Duration, Effect, Either, Layer, Schedule, Schema, type Stream, SubscriptionRef } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { endorsedBytes } from "../../protocol/relay/LinkHandshake.ts"
import type { RelayTrust } from "../../protocol/trust/EnrolmentToken.ts"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import * as Crypto from "../host/Crypto.ts"
import * as Keys from "./Keys.ts"
import * as Pki from "./Pki.ts"

/** The relay's TLS certificate and its changes. */
export class RelayTls extends Context.Tag("sallyport/services/RelayTls")<RelayTls, {
  /** How nodes recognise this relay. Enrolment tokens contain it. */
  readonly trust: RelayTrust
  readonly current: Effect.Effect<Pki.Leaf>
  /**
   * Emits the current certificate, then each new one. Open connections keep the certificate that
   * they started with.
   */
  readonly changes: Stream.Stream<Pki.Leaf>
  /**
   * Signs the hash of a certificate from the operator's files with the relay's own key, so that
   * nodes which pin that key accept it. `undefined` if the relay issues its own certificates.
   */
  readonly endorse: ((certSha256: Uint8Array) => Uint8Array) | undefined
}>() {}

/** Error when the operator's certificate or key cannot be used. `message` says what to correct. */
export class RelayTlsError extends Schema.TaggedError<RelayTlsError>()("RelayTlsError", {
  message: Schema.String
}) {}

/** Name of the TLS key file in a relay's state directory. */
export const TLS_KEY_FILE = "tls.key"

/**
 * How long before its end a certificate is replaced. The margin covers nodes whose clock is ahead
 * and a relay that sleeps.
 */
const RENEW_BEFORE = Duration.seconds(LIFETIMES.certificateRenewBefore)
/**
 * How often the relay checks whether its certificate must be renewed. A single long timer would
 * fire late on a machine that sleeps.
 */
const LOOK_EVERY = Duration.seconds(LIFETIMES.certificateCheck)
/** How often the operator's files are compared with the certificate in use. */
const COMPARE_EVERY = Duration.minutes(1)

/** Options of {@link layer}. */
export interface Options {
  readonly stateDir: string
  /** The name or IP literal that nodes connect to. */
  readonly host: string
  /** Paths of the operator's PEM files, or `null` if the relay issues its own certificate. */
  readonly tls: { readonly cert: string; readonly key: string } | null
}

/** Layer that issues certificates, or reads the operator's files if `options.tls` names them. */
export const layer = (options: Options): Layer.Layer<RelayTls, RelayTlsError | Keys.KeyFileError> =>
  options.tls === null
    ? Layer.scoped(RelayTls, makeIssued(options))
    : Layer.scoped(RelayTls, makeFromFiles(options.stateDir, options.tls))

const makeIssued = Effect.fnUntraced(function*({ host, stateDir }: Options) {
  const { privateKey, publicKey } = yield* Keys.load(join(stateDir, TLS_KEY_FILE))
  const issue = Effect.flatMap(Clock.currentTimeMillis, (nowMs) => Pki.issueLeaf({ issuer: privateKey, host, nowMs }))
  const ref = yield* SubscriptionRef.make(yield* issue)
  const renew = Effect.gen(function*() {
    const { notAfter } = yield* ref.get
    if ((yield* Clock.currentTimeMillis) < notAfter - Duration.toMillis(RENEW_BEFORE)) return
    yield* SubscriptionRef.set(ref, yield* issue)
    yield* Effect.logDebug("The relay issued its next TLS certificate")
  })
  yield* Effect.forkScoped(Effect.schedule(renew, Schedule.spaced(LOOK_EVERY)))
  return serve({ _tag: "Pin", key: publicKey }, ref)
})

const makeFromFiles = Effect.fnUntraced(function*(
  stateDir: string,
  files: { readonly cert: string; readonly key: string }
) {
  const { privateKey } = yield* Keys.load(join(stateDir, TLS_KEY_FILE))
  const ref = yield* SubscriptionRef.make(yield* readFiles(files))
  // the last problem, so that each is logged only once; only the fiber below touches it
  let problem = ""
  const reload = readFiles(files).pipe(
    Effect.flatMap(Effect.fnUntraced(function*(leaf) {
      problem = ""
      if (leaf.cert === (yield* ref.get).cert) return
      yield* SubscriptionRef.set(ref, leaf)
      yield* Effect.logInfo("The TLS certificate was replaced")
    })),
    Effect.catchTag("RelayTlsError", ({ message }) => {
      if (message === problem) return Effect.void
      problem = message
      return Effect.logWarning(`The TLS certificate in use is kept: ${message}`)
    })
  )
  yield* Effect.forkScoped(Effect.schedule(reload, Schedule.spaced(COMPARE_EVERY)))
  return serve({ _tag: "Ca" }, ref, (sha256) => Crypto.sign(privateKey, endorsedBytes(sha256)))
})

const serve = (
  trust: RelayTrust,
  ref: SubscriptionRef.SubscriptionRef<Pki.Leaf>,
  endorse?: (certSha256: Uint8Array) => Uint8Array
) => RelayTls.of({ trust, current: ref.get, changes: ref.changes, endorse })

const readFiles = ({ cert, key }: { readonly cert: string; readonly key: string }) =>
  Effect.zipWith(readText(cert), readText(key), Pki.fromPem).pipe(
    Effect.flatMap(
      Either.mapLeft(({ message }) =>
        new RelayTlsError({ message: `cannot use tls.cert ${cert} with tls.key ${key}: ${message}` })
      )
    )
  )

const readText = (path: string) =>
  Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: () =>
      new RelayTlsError({ message: `cannot read ${path}; correct tls in the configuration, or the file's mode` })
  })
