/** Accepts links at the relay's TLS port, authenticates the peer of each, and hands it on. */
import { Deferred, Duration, Effect, FiberSet, Schema, type Scope, Stream } from "effect"
import { type Purpose, UNSEEN_CERT } from "../../protocol/relay/LinkHandshake.ts"
import type { Leaf } from "../../services/identity/Pki.ts"
import * as ListenCheck from "../../services/network/ListenCheck.ts"
import { RefusedByServer } from "../../session/ClientHandshake.ts"
import { type CarrierLink, CloseCode, type Link } from "../../session/Link.ts"
import * as Handshaking from "./Handshaking.ts"
import * as LinkPort from "./LinkPort.ts"

/** Error when the address or port is not available. */
export class ListenError extends Schema.TaggedError<ListenError>()("ListenError", {
  code: Schema.String,
  message: Schema.String
}) {}

/**
 * Error with which `authenticate` refuses a client. The client receives it, and its user reads
 * `message`.
 */
export class LinkRefused extends Schema.TaggedError<LinkRefused>()("LinkRefused", {
  code: Schema.String,
  message: Schema.String
}) {}

/** An authenticated peer. */
export interface Peer extends Handshaking.Claims {
  readonly remote: string
}

/** Options of a link server. `R` is what its handlers require. */
export interface Options<R> {
  readonly host: string
  /** Port to listen on. 0 means any free one. */
  readonly port: number
  /** The initial certificate. */
  readonly tls: Leaf
  /**
   * Emits later certificates. Open links keep theirs. A client that saw the previous certificate is
   * still accepted.
   */
  readonly tlsChanges: Stream.Stream<Leaf>
  /**
   * Signs the hash of a certificate with the relay's own key. If it is absent, clients that pin
   * that key accept only certificates that the key issued.
   */
  readonly endorse?: ((certSha256: Uint8Array) => Uint8Array) | undefined
  /**
   * Called when the client's signature has been verified. Returns the content of the Welcome. The
   * time that it takes counts towards the handshake's deadline.
   */
  readonly authenticate: (peer: Peer) => Effect.Effect<Uint8Array, LinkRefused, R>
  /**
   * Uses the link of an authenticated peer. When this effect ends, the link is closed. When the
   * link ends, the effect is interrupted.
   */
  readonly onLink: (link: Link, peer: Peer) => Effect.Effect<void, never, R>
  /** Load balancers and reverse proxies in front of the port. */
  readonly fronts?: LinkPort.Fronts | undefined
  /**
   * Hash that a client signs instead of a certificate's if a reverse proxy ends its TLS
   * (`LinkHandshake.proxiedName`).
   */
  readonly proxiedHash?: Uint8Array | undefined
  /**
   * Path of the Unix socket on which the HTTP/3 gateway connects, in a folder that only this
   * process uses.
   */
  readonly gate?: string | undefined
  readonly pages?: (path: string) => LinkPort.Page | undefined
  readonly limits?: Partial<LinkPort.Limits>
}

/** A running link server. `port` is the port that it listens on. */
export interface LinkServer {
  readonly port: number
  readonly stats: () => Readonly<LinkPort.Stats>
  /**
   * Accepts no more links, waits up to `goAwayMs` for the existing ones to end, and closes the rest
   * with code 1012.
   */
  readonly stop: (options: { readonly goAwayMs: number }) => Effect.Effect<void>
}

const PURPOSES: Readonly<Record<string, Purpose>> = { "/signal": "signal", "/relay": "relay", "/browser": "browser" }

/** Starts a link server. The scope stops it and closes its links. */
export const make = <R>(options: Options<R>): Effect.Effect<LinkServer, ListenError, R | Scope.Scope> =>
  Effect.gen(function*() {
    const links = new Map<CarrierLink, Deferred.Deferred<void>>()
    const hashes = [options.tls.sha256]
    const endorsements: Array<Uint8Array> = []
    const endorse = () => {
      if (options.endorse !== undefined) endorsements.splice(0, endorsements.length, ...hashes.map(options.endorse))
    }
    endorse()
    const fork = yield* FiberSet.makeRuntime<R>()
    const port = new LinkPort.LinkPort({
      host: options.host,
      port: options.port,
      tls: options.tls,
      paths: Object.keys(PURPOSES),
      gate: options.gate,
      fronts: options.fronts,
      onOddHeader: (message) => void fork(Effect.logWarning(message)),
      pages: options.pages,
      limits: { ...LinkPort.DEFAULT_LIMITS, ...options.limits },
      onLink: (stranger) => void fork(serve(options, stranger, { hashes, endorsements }, links))
    })
    const stop = ({ goAwayMs }: { readonly goAwayMs: number }) =>
      Effect.gen(function*() {
        port.stopAccepting()
        if (goAwayMs > 0) yield* Effect.timeoutOption(allEnded(links), Duration.millis(goAwayMs))
        for (const link of links.keys()) link.close("the relay stops; connect again", CloseCode.restart)
        yield* Effect.timeoutOption(allEnded(links), CLOSE_WAIT)
      })
    const listening = yield* Effect.acquireRelease(
      Effect.tryPromise({ try: () => port.listen(), catch: (cause) => listenError(options, cause) }),
      () => Effect.zipRight(stop({ goAwayMs: 0 }), Effect.sync(() => port.destroy()))
    )
    yield* Effect.forkScoped(Stream.runForEach(options.tlsChanges, (next) =>
      Effect.sync(() => {
        if (Buffer.compare(next.sha256, hashes[0]!) === 0) return
        port.updateTls(next)
        hashes.splice(0, hashes.length, next.sha256, hashes[0]!)
        endorse()
      })))
    return { port: listening, stats: () => port.stats, stop }
  })

/** How long closed links may take to end. A link allows a second for its close notice. */
const CLOSE_WAIT = Duration.millis(1500)

const allEnded = (links: ReadonlyMap<CarrierLink, Deferred.Deferred<void>>) =>
  Effect.forEach(links.values(), Deferred.await, { concurrency: "unbounded", discard: true })

const serve = <R>(
  options: Options<R>,
  { isProxied, link, path, welcome }: LinkPort.Stranger,
  { endorsements, hashes }: Readonly<Record<"endorsements" | "hashes", ReadonlyArray<Uint8Array>>>,
  links: Map<CarrierLink, Deferred.Deferred<void>>
): Effect.Effect<void, never, R> =>
  Effect.gen(function*() {
    const purpose = PURPOSES[path] ?? "signal"
    const proxied = isProxied && options.proxiedHash !== undefined ? [options.proxiedHash] : []
    const shown = link.carrier === "webtransport-h3" ? [link.serverCertSha256] : [...proxied, ...hashes]
    const claims = yield* Effect.tryPromise({
      try: () =>
        Handshaking.asServer(link, {
          purpose,
          certHashes: purpose === "browser" ? [UNSEEN_CERT] : shown,
          endorsements: purpose === "browser" ? [] : endorsements
        }),
      catch: (error) => error
    })
    const peer: Peer = { ...claims, remote: link.remote }
    link.serverCertSha256 = claims.certSha256
    const body = yield* options.authenticate(peer)
    // Before the answer, so that a client that reacts at once is no longer counted as a stranger.
    welcome()
    yield* Effect.tryPromise({ try: () => Handshaking.welcome(link, body), catch: (error) => error })
    const ended = yield* Deferred.make<void>()
    links.set(link, ended)
    yield* Effect.ensuring(
      options.onLink(link, peer),
      Effect.suspend(() => {
        link.close("the relay has ended the link")
        return Effect.zipRight(
          Effect.sync(() => links.delete(link)),
          Effect.zipRight(Effect.promise(() => link.closed), Deferred.succeed(ended, undefined))
        )
      })
    )
  }).pipe(
    Effect.raceFirst(Effect.promise(() => link.closed)),
    Effect.asVoid,
    Effect.catchAll((error) => turnAway(link, error)),
    Effect.ensuring(Effect.sync(() => link.close("the relay has ended the link")))
  )

const turnAway = (link: CarrierLink, error: unknown): Effect.Effect<void> =>
  Effect.gen(function*() {
    yield* Effect.logDebug("refused a link", error).pipe(Effect.annotateLogs({ remote: link.remote }))
    if (!(error instanceof LinkRefused) && !(error instanceof RefusedByServer)) {
      return link.close("no handshake", CloseCode.protocol)
    }
    yield* Effect.ignore(Effect.tryPromise(() => Handshaking.refuse(link, error.code, error.message)))
    link.close(error.code, CloseCode.policy)
  })

const listenError = <R>({ gate, host, port }: Options<R>, cause: unknown): ListenError => {
  const { code = "", path } = cause as NodeJS.ErrnoException
  if (gate !== undefined && (path === gate || code === "ENAMETOOLONG")) {
    const message =
      `cannot make the socket ${gate} (${code}); choose another stateDir, with a path of at most 80 characters`
    return new ListenError({ code, message })
  }
  return new ListenError({
    code,
    message: `listen.https cannot listen on ${host}:${port}: ${ListenCheck.remedy(code || String(cause), port, "tcp")}`
  })
}
