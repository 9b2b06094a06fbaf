/** The relay's TLS certificate as it is now: issued by its own key and renewed while running, or an operator's files. */
import { Clock, Context, Duration, Effect, Either, Layer, Schedule, Schema, type Stream, SubscriptionRef } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import type { RelayTrust } from "../protocol/EnrolmentToken.ts"
import { LIFETIMES } from "../protocol/Lifetimes.ts"
import * as Keys from "./Keys.ts"
import * as Pki from "./Pki.ts"

export class RelayTls extends Context.Tag("sallyport/services/RelayTls")<RelayTls, {
  /** How nodes know this relay; goes into enrolment tokens. */
  readonly trust: RelayTrust
  readonly current: Effect.Effect<Pki.Leaf>
  /** The present one first, then each new one; connections that are open keep theirs. */
  readonly changes: Stream.Stream<Pki.Leaf>
}>() {}

export class RelayTlsError extends Schema.TaggedError<RelayTlsError>()("RelayTlsError", {
  message: Schema.String
}) {}

export const TLS_KEY_FILE = "tls.key"

/** A leaf is replaced this long before it ends; what is left covers clocks that are ahead and a relay that sleeps. */
const RENEW_BEFORE = Duration.seconds(LIFETIMES.certificateRenewBefore)
/** How often the calendar is looked at; one long sleep would be wrong on a machine that sleeps, too. */
const LOOK_EVERY = Duration.seconds(LIFETIMES.certificateCheck)
/** How often an operator's files are compared. */
const COMPARE_EVERY = Duration.minutes(1)

export interface Options {
  readonly stateDir: string
  /** What nodes connect to: a name or an IP literal. */
  readonly host: string
  /** Paths of PEM files; null: the relay issues its own. */
  readonly tls: { readonly cert: string; readonly key: string } | null
}

export const layer = (options: Options): Layer.Layer<RelayTls, RelayTlsError | Keys.KeyFileError> =>
  options.tls === null
    ? Layer.scoped(RelayTls, makeIssued(options))
    : Layer.scoped(RelayTls, makeFromFiles(options.tls))

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

const makeFromFiles = Effect.fnUntraced(function*(files: { readonly cert: string; readonly key: string }) {
  const ref = yield* SubscriptionRef.make(yield* readFiles(files))
  let problem = "" // told once, not once a minute; only the fiber below touches it
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
  return serve({ _tag: "Ca" }, ref)
})

const serve = (trust: RelayTrust, ref: SubscriptionRef.SubscriptionRef<Pki.Leaf>) =>
  RelayTls.of({ trust, current: ref.get, changes: ref.changes })

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
