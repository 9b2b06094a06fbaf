/**
 * Connects a page to its relay: from an enrolment token or a stored identity to an authenticated
 * link with typed calls.
 */
import { RpcClient } from "@effect/rpc"
import { Clock, Duration, Effect, Either, Redacted, Schema, Stream } from "effect"
import { RelaySignalingRpcs } from "../actors/signaling/RelaySignalingRpcs.ts"
import { renderHostPort } from "../protocol/bytes/SocketAddr.ts"
import type { Enrol } from "../protocol/relay/LinkHandshake.ts"
import * as Documents from "../protocol/trust/Documents.ts"
import * as EnrolmentToken from "../protocol/trust/EnrolmentToken.ts"
import type { NodeKey } from "../protocol/trust/NodeKey.ts"
import * as Signed from "../protocol/trust/Signed.ts"
import * as ClientHandshake from "../session/ClientHandshake.ts"
import type { CarrierLink } from "../session/Link.ts"
import * as RpcOverLink from "../session/RpcOverLink.ts"
import * as Ways from "../session/Ways.ts"
import * as BrowserKey from "./BrowserKey.ts"
import * as Sessions from "./PageSessions.ts"
import * as Store from "./Store.ts"
import * as WebSocketLink from "./WebSocketLink.ts"
import * as WebTransportLink from "./WebTransportLink.ts"

/**
 * Error when there is no connection to the relay. Reasons:
 * - `bad_token`: the token is invalid, or it cannot be used in a browser.
 * - `not_enrolled`: no token was given, and this browser has no identity yet.
 * - `unsupported`: this browser lacks something that is needed.
 * - `unreachable`: the relay could not be reached. A browser does not say why.
 * - `refused`: the relay refused the client; `code` is the relay's error code.
 * - `broken`: the relay's answer is invalid, or WebCrypto failed.
 */
export class ConnectFailed extends Schema.TaggedError<ConnectFailed>()("ConnectFailed", {
  reason: Schema.Literal("bad_token", "not_enrolled", "unsupported", "unreachable", "refused", "broken"),
  code: Schema.String,
  message: Schema.String
}) {}

/** Longest time to open the link, and again to complete the handshake on it. */
const DEADLINE = Duration.seconds(10)

/** Opens a link to the relay and signs in. The link ends with the scope. */
export const connect = Effect.fn("Relay.connect")(function*(tokenText: string | undefined, webTransport: boolean) {
  const { enrol, identity } = yield* tokenText === undefined ? remembered : fromToken(tokenText)
  const { authorityKey, host, httpsPort } = identity
  const nodeKey = yield* attempt(() => BrowserKey.nodeKeyOf(identity.keys), broken)
  const authority = renderHostPort({ host, port: httpsPort })
  const link = yield* open(authority, webTransport)
  const welcome = yield* Effect.tryPromise({
    try: () =>
      ClientHandshake.asClient(link, {
        purpose: "browser",
        identity: { key: nodeKey, sign: (message) => BrowserKey.sign(identity.keys, message) },
        enrol
      }),
    catch: handshakeFailed
  }).pipe(Effect.timeoutFail({ duration: DEADLINE, onTimeout: () => unreachable(authority) }))
  const membership = yield* verified(welcome, authorityKey, nodeKey)
  yield* remember({ ...identity, usedAt: yield* Clock.currentTimeMillis })
  const protocol = yield* RpcOverLink.makeClient(link)
  const client = yield* RpcClient.make(RelaySignalingRpcs).pipe(Effect.provideService(RpcClient.Protocol, protocol))
  const sessions = yield* Sessions.make({ client, authorityKey, nodeKey, keys: identity.keys })
  return {
    name: membership.name,
    nodeKey,
    relay: authority,
    carrier: link.carrier === "websocket" ? "websocket" as const : "webtransport" as const,
    sessions,
    resources: Stream.runCollect(client.Resources()).pipe(
      Effect.mapError(({ message }) => fail("unreachable", message))
    ),
    closed: Effect.promise(() => link.closed)
  }
})

const open = (authority: string, webTransport: boolean) =>
  Effect.uninterruptibleMask((restore) =>
    restore(
      Effect.tryPromise({
        try: (signal) => Ways.firstOf(waysTo(authority, webTransport), HEAD_START_MS, signal),
        catch: () => unreachable(authority)
      }).pipe(Effect.timeoutFail({ duration: DEADLINE, onTimeout: () => unreachable(authority) }))
    ).pipe(
      Effect.tap((link) => Effect.addFinalizer(() => Effect.sync(() => link.close("this page has ended the link"))))
    )
  )

/**
 * Time that WebTransport has before WebSocket is tried beside it. It is longer than a handshake
 * takes on an ordinary path. A relay without HTTP/3 usually refuses at once, and then WebSocket
 * does not wait.
 */
const HEAD_START_MS = 300

/**
 * Carriers to try, best first. WebTransport is first if the browser has it, because its connection
 * survives a change of the browser's network.
 */
const waysTo = (authority: string, webTransport: boolean): ReadonlyArray<Ways.Way<CarrierLink>> => {
  const discard = (link: CarrierLink) => link.destroy("another carrier was faster")
  return [
    ...(webTransport && WebTransportLink.isKnown()
      ? [{ open: (signal: AbortSignal) => WebTransportLink.open(`https://${authority}/browser`, signal), discard }]
      : []),
    { open: (signal: AbortSignal) => WebSocketLink.open(`wss://${authority}/browser`, signal), discard }
  ]
}

const remembered = Effect.gen(function*() {
  const identity = yield* attempt(() => Store.last(), noStore)
  if (identity === undefined) {
    return yield* fail("not_enrolled", "this browser is not enrolled yet; enter an enrolment token")
  }
  return { identity, enrol: undefined }
})

const fromToken = Effect.fnUntraced(function*(text: string) {
  const parsed = EnrolmentToken.parse(text)
  if (Either.isLeft(parsed)) return yield* fail("bad_token", parsed.left.message, parsed.left.reason)
  const { authorityKey, host, httpsPort, id, secret, tls } = parsed.right
  if (tls._tag === "Pin") {
    return yield* fail(
      "bad_token",
      "this token is of a relay with a certificate of its own, which no browser trusts; set tls in the relay's configuration, then create a new token",
      "needs_ca"
    )
  }
  const enrol: Enrol = { tokenId: id, secret: Redacted.value(secret) }
  const known = yield* attempt(() => Store.find(authorityKey), noStore)
  if (known !== undefined) return { enrol, identity: { ...known, host, httpsPort } }
  const keys = yield* attempt(BrowserKey.generate, noEd25519)
  const usedAt = yield* Clock.currentTimeMillis
  const identity: Store.Identity = { authorityKey, host, httpsPort, keys, usedAt }
  // Stored before the relay hears of the key: if a key that used the token were lost, the token
  // would be lost, too.
  return yield* attempt(() => Store.create(identity), noStore).pipe(
    Effect.as({ enrol, identity }),
    Effect.catchAll((error) =>
      Effect.flatMap(
        attempt(() => Store.find(authorityKey), noStore),
        (other) => other === undefined ? Effect.fail(error) : Effect.succeed({ enrol, identity: other })
      )
    )
  )
})

const remember = (identity: Store.Identity) => attempt(() => Store.save(identity), noStore)

/**
 * Verifies the membership in the relay's answer with the authority's key. The relay itself is not
 * trusted.
 */
const verified = Effect.fnUntraced(function*(welcome: Uint8Array, authorityKey: NodeKey, nodeKey: NodeKey) {
  const signed = yield* Either.mapLeft(Signed.fromBytes(welcome), (message) => fail("broken", message))
  const message = Signed.signedBytes("membership", signed.payload)
  const isSigned = yield* attempt(() => BrowserKey.verify(authorityKey, message, signed.signature), broken)
  const membership = yield* Either.mapLeft(
    Documents.open("membership", signed, () => isSigned, 0),
    (rejected) => fail("broken", rejected.message, rejected.reason)
  )
  return membership.nodeKey === nodeKey
    ? membership
    : yield* fail("broken", "the relay's answer is for another key", "foreign")
})

const fail = (reason: ConnectFailed["reason"], message: string, code = "") =>
  new ConnectFailed({ reason, code, message })

const attempt = <A>(ask: () => Promise<A>, onError: (why: string) => ConnectFailed) =>
  Effect.tryPromise({ try: ask, catch: (error) => onError(error instanceof Error ? error.message : String(error)) })

const broken = (why: string) => fail("broken", `WebCrypto failed: ${why}`)
const noStore = (why: string) =>
  fail("unsupported", `this browser keeps nothing for this page (${why}); leave private mode, or free some space`)
const noEd25519 = (why: string) =>
  fail("unsupported", `this browser makes no Ed25519 keys (${why}); use a newer one, over HTTPS`)

const unreachable = (authority: string) =>
  fail(
    "unreachable",
    `cannot connect to ${authority}; check that the relay runs, that this network lets the connection through, and that the browser trusts the relay's certificate`
  )

const handshakeFailed = (error: unknown) => {
  if (error instanceof ClientHandshake.RefusedByServer) return fail("refused", error.message, error.code)
  if (error instanceof ClientHandshake.BrokenHandshake) {
    return fail("broken", `the relay does not speak this protocol (${error.message}); load this page again`)
  }
  return fail("unreachable", `the connection broke under way (${error instanceof Error ? error.message : ""})`)
}
