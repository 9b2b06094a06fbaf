/**
 * A connector's sessions with browsers, from the relay's invitation to their end. The two ends seal
 * their signals for each other (`SignalSeal`), so that the DTLS fingerprint in a signal belongs to
 * the key that the grant names.
 */
import { Clock, Effect, Either } from "effect"
import type { IceServer } from "node-datachannel"
import { createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject } from "node:crypto"
import * as HostName from "../../protocol/bytes/HostName.ts"
import * as IceSignal from "../../protocol/candidate/IceSignal.ts"
import { DirectoryTime } from "../../protocol/trust/DirectoryTime.ts"
import { toBytes } from "../../protocol/trust/NodeKey.ts"
import * as SignalSeal from "../../protocol/trust/SignalSeal.ts"
import type { Signed } from "../../protocol/trust/Signed.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import type { NodeState } from "../../services/identity/NodeState.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import { SessionTable } from "../../session/SessionTable.ts"
import { Places } from "../../transport/flow/Places.ts"
import { DEFAULT_FLOWS_PER_CLIENT } from "../../transport/plane/ConnectorFlows.ts"
import { BrowserSession } from "../../transport/webrtc/BrowserSession.ts"
import type { AgentPasswords } from "../../transport/webrtc/TurnProxy.ts"
import { Drain } from "../mux/Drain.ts"
import * as FlowTrace from "../mux/FlowTrace.ts"
import * as InviteAnswers from "../mux/InviteAnswers.ts"
import { Refusals } from "../mux/Refusals.ts"
import { ResourceMetrics } from "../mux/ResourceMetrics.ts"
import * as SessionDocuments from "../mux/SessionDocuments.ts"
import { RENEWALS_AT_ONCE } from "../mux/SessionRenewal.ts"
import type { Draining } from "../mux/StreamMuxRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { NodeEvent, Signaling } from "../signaling/SignalingRpcs.ts"
import type { BrowserPeer } from "./WebRtcRpcs.ts"

/** Most sessions of one connector. One more is declined. */
const MAX_SESSIONS = 256
/** How long a browser may take to connect before its session is ended. */
const CONNECT_MS = 30_000
const BROWSER: FlowTrace.Route = { kind: "webrtc", why: "browser" }
const BRIEF = { deadline: "2 seconds" } as const

/** Options of {@link make}. */
export interface Options {
  readonly node: NodeState
  /** Time of `HostClock`, in ms. */
  readonly hostMs: () => number
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  /** ICE servers for a new connection. */
  readonly servers: Effect.Effect<ReadonlyArray<string | IceServer>>
  /** Passwords of this process's ICE agents. */
  readonly passwords: AgentPasswords
  readonly traces: FlowTrace.FlowTraces
  /** Whether it declines new sessions from the start. */
  readonly draining: boolean
  /** Posts an event of a connection to the actor's inbox. */
  readonly post: (message: Outcome) => void
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** Event of a WebRTC connection with a browser, for the actor's inbox. */
export type Outcome =
  | { readonly _tag: "BrowserSignal"; readonly session: SessionId; readonly signal: IceSignal.IceSignal }
  | { readonly _tag: "BrowserDown"; readonly session: SessionId; readonly why: string }

interface Held {
  readonly name: string
  readonly parties: SignalSeal.Parties
  readonly session: BrowserSession
  /** When the relay sent the invitation, by `hostMs`. */
  readonly since: number
  /** The signed ticket, with which the session is renewed. */
  ticket: Signed
  /** Seal of the signals. `null` until both ends have agreed on a key. */
  seal: SignalSeal.SignalSeal | null
}

/** Makes an empty set of sessions with browsers. Call `tick` every few seconds. */
export const make = ({ draining, fork, hostMs, node, passwords, post, servers, signaling, traces }: Options) => {
  const held = new SessionTable<Held>(MAX_SESSIONS)
  const verdicts = new Metrics.Counts()
  const resources = new ResourceMetrics()
  const refusals = new Refusals()
  const time = new DirectoryTime(hostMs)
  const clocks = { hostMs, nowSeconds: () => time.nowSeconds() }
  /** Whether the directory is reached. Sessions end with their grants all the same. */
  let isReached = true
  const places = new Places()
  const drain = new Drain(draining)
  const documents = SessionDocuments.make({
    authorityKey: node.relay.authorityKey,
    role: "connector",
    key: node.identity.key,
    nowSeconds: clocks.nowSeconds
  })
  const verify = (signed: Signed) => documents.verify("grant", signed)

  /**
   * Fetches new grants of all sessions when the directory is back, because rules may have changed
   * meanwhile. A grant that permits nothing any more cuts the flows.
   */
  const confirmAll = Effect.suspend(() =>
    Effect.forEach(
      held.all(),
      (it) =>
        signaling.ask((client) => client.Renew({ ticket: it.ticket }), BRIEF).pipe(
          Effect.map((renewed) => {
            const grant = verify(renewed.grant)
            it.ticket = renewed.ticket
            if (Either.isRight(grant)) it.session.setGrant(grant.right)
          }),
          Effect.ignore // the page renews its grant, or the session ends with it
        ),
      { concurrency: RENEWALS_AT_ONCE, discard: true }
    )
  )

  const end = (id: SessionId, why: string) =>
    Effect.suspend(() => {
      const it = held.remove(id)
      if (it === undefined) return Effect.void
      it.session.close(why)
      return Effect.logInfo("browser gone").pipe(Effect.annotateLogs({ session: id, peer: it.name, why }))
    })

  const sessionOf = ({ grant, ticket }: SessionDocuments.Opened, name: string) => {
    const { connectorKey, session: id } = ticket
    return new BrowserSession({
      grant,
      ticket,
      key: connectorKey,
      clocks,
      openGrant: verify,
      passwords,
      onSignal: (signal) => post({ _tag: "BrowserSignal", session: id, signal }),
      onConnected: (pair) =>
        fork(
          Effect.logInfo("browser connected").pipe(
            Effect.annotateLogs({ session: id, peer: name, ...pair })
          )
        ),
      flowLimits: { places, flowsPerClient: DEFAULT_FLOWS_PER_CLIENT },
      onFlow: (asked) =>
        FlowTrace.serve(traces, id, BROWSER, asked, resources, (verdict) => {
          verdicts.add(verdict.code)
          if (verdict.code === "accepted") return
          const { host, port } = asked
          const refused = { host, port, peer: name, verdict }
          fork(Effect.flatMap(Clock.currentTimeMillis, (now) => refusals.onRefused(refused, now)))
        }),
      onDown: (why) => post({ _tag: "BrowserDown", session: id, why })
    })
  }
  const answer = InviteAnswers.make({
    held,
    drain,
    documents,
    signaling,
    ...BRIEF,
    declined: "browser declined",
    full: "no room for another browser",
    refuse: () => null,
    begin: (opened, { clientName, session: id, ticket }) =>
      Effect.sync(() => {
        const { clientKey, connectorKey } = opened.ticket
        const name = HostName.shown(opened.grant.clientName, clientName)
        held.add(id, {
          name,
          parties: { session: id, clientKey, connectorKey },
          since: hostMs(),
          ticket,
          seal: null,
          session: sessionOf(opened, name)
        })
        return null
      })
  })
  const onInvite = Effect.fn("WebRtc.onInvite")(
    (invite: InviteAnswers.Invite) => answer(invite),
    Effect.catchAll((error) => Effect.logWarning("a browser's invitation could not be answered", error.message))
  )

  const forward = (session: SessionId, box: Uint8Array) =>
    Effect.sync(() => fork(Effect.ignore(signaling.ask((it) => it.Forward({ session, box }), BRIEF))))

  /** Takes the client's key, once in a session, and answers with this node's own. */
  const onHello = Effect.fnUntraced(function*(it: Held, { ephemeral, signature }: SignalSeal.Hello) {
    const { parties } = it
    const signed = SignalSeal.signedBytes("client", parties, { client: ephemeral, connector: null })
    if (it.seal !== null || !Crypto.verify(toBytes(parties.clientKey), signed, signature)) return
    const own = generateKeyPairSync("x25519")
    const connectorEphemeral = rawOf(own.publicKey)
    const secret = agree(own.privateKey, ephemeral)
    if (secret === null) return
    const agreed = { ...parties, side: "connector", secret, clientEphemeral: ephemeral, connectorEphemeral } as const
    it.seal = yield* Effect.promise(() => SignalSeal.SignalSeal.make(agreed))
    const both = { client: ephemeral, connector: connectorEphemeral }
    const answer = node.identity.sign(SignalSeal.signedBytes("connector", parties, both))
    yield* forward(parties.session, SignalSeal.encodeHello({ ephemeral: connectorEphemeral, signature: answer }))
  })

  const onBox = Effect.fnUntraced(function*(it: Held, box: Uint8Array) {
    const hello = SignalSeal.decodeHello(box)
    if (hello !== null) return yield* onHello(it, hello)
    const { seal, session } = it
    const plain = seal === null ? null : yield* Effect.promise(() => seal.open(box))
    const signal = plain === null ? null : IceSignal.decode(plain)
    if (signal === null) return yield* Effect.logDebug("a browser's signal was not understood")
    session.onSignal(signal, signal.kind === "offer" ? yield* servers : [])
  })

  return {
    /** Handles an event from signaling. */
    onEvent: (event: NodeEvent): Effect.Effect<void> => {
      switch (event._tag) {
        case "TimeLearned":
          return Effect.sync(() => time.set(event.offsetMs))
        case "ReachChanged":
          return Effect.sync(() => {
            if (event.reached && !isReached) fork(confirmAll)
            isReached = event.reached
          })
        case "Invite":
          return event.over === "webrtc" ? onInvite(event) : Effect.void
        case "Sealed": {
          const it = held.get(event.session)
          return it === undefined ? Effect.void : onBox(it, event.box)
        }
        case "GrantReplaced":
          return Effect.suspend(() => {
            const session = held.get(event.session)?.session
            const grant = verify(event.grant)
            if (session === undefined) return Effect.void
            if (Either.isRight(grant)) return Effect.sync(() => session.setGrant(grant.right))
            return Effect.logWarning("a new grant was refused").pipe(
              Effect.annotateLogs({ session: event.session, why: grant.left })
            )
          })
        case "Revoked":
          return Effect.forEach(
            held.all(),
            ({ parties }) =>
              parties.clientKey === event.node || parties.connectorKey === event.node
                ? end(parties.session, "the node was removed")
                : Effect.void,
            { discard: true }
          )
        case "TicketRenewed":
          return Effect.sync(() => {
            const it = held.get(event.session)
            if (it !== undefined) it.ticket = event.ticket
          })
        case "Snapshot":
        case "SessionLost":
        case "RelaysChanged":
        case "BindingsLost":
        case "CredentialRenewed":
        case "Examine":
        case "GoAway":
          return Effect.void
      }
    },
    onOutcome: (outcome: Outcome): Effect.Effect<void> => {
      if (outcome._tag === "BrowserDown") return end(outcome.session, outcome.why)
      const { session, signal } = outcome
      const seal = held.get(session)?.seal
      if (seal === undefined || seal === null) return Effect.void
      const sealed = Effect.promise(() => seal.seal(IceSignal.encode(signal)))
      return Effect.flatMap(sealed, (box) => forward(session, box))
    },
    /** Ends sessions that are not used or not permitted. */
    tick: Effect.suspend(() => {
      const now = hostMs()
      return Effect.forEach(held.all(), ({ parties, session, since }) =>
        !session.expire()
          ? end(parties.session, "its grant has expired")
          : !session.isConnected && now - since >= CONNECT_MS
          ? end(parties.session, "not connected in time")
          : Effect.void, { discard: true })
    }),
    /** Does for browsers what `setDraining` of the data plane's sessions does for nodes. */
    setDraining: (wanted: boolean): Draining => drain.set(wanted, held.all().map(({ session }) => session)),
    closeAll: Effect.suspend(() =>
      Effect.forEach(held.all(), ({ parties: { session: id } }) => end(id, "this connector stops"))
    ),
    peers: (): ReadonlyArray<BrowserPeer> =>
      Array.from(held, ({ name, parties, session }) => {
        const { pair, ...status } = session.status
        return { ...status, session: parties.session, name, local: pair?.local ?? null, remote: pair?.remote ?? null }
      }).filter(({ local }) => local !== null),
    metrics: (): ReadonlyArray<Metrics.Family> => [
      Metrics.counter(
        { name: "sallyport_browser_flow_opens", help: "Flows that browsers asked for, by the answer." },
        verdicts.points("code")
      ),
      Metrics.gauge(
        { name: "sallyport_browser_sessions", help: "Sessions with browsers." },
        [{ labels: {}, value: held.size }]
      ),
      ...resources.read()
    ]
  } as const
}

const rawOf = (key: KeyObject): Uint8Array =>
  new Uint8Array(Buffer.from(key.export({ format: "jwk" }).x ?? "", "base64url"))

/**
 * Agrees on a secret by X25519 (RFC 7748). Returns `null` for a key of small order, which would
 * give no secret.
 */
const agree = (privateKey: KeyObject, raw: Uint8Array): Uint8Array | null => {
  try {
    const jwk = { kty: "OKP", crv: "X25519", x: Buffer.from(raw).toString("base64url") }
    return new Uint8Array(diffieHellman({ privateKey, publicKey: createPublicKey({ key: jwk, format: "jwk" }) }))
  } catch {
    return null
  }
}
