/**
 * The sessions of a page with connectors. Each session is dialled when a flow needs it and also
 * carries later flows.
 */
import type { RpcClient, RpcGroup } from "@effect/rpc"
import type { RpcClientError } from "@effect/rpc/RpcClientError"
import { Cause, Deferred, Effect, Exit, Redacted, Schema, Stream } from "effect"
import type { Dialed, RelaySignalingRpcs, SignalingEvent } from "../actors/signaling/RelaySignalingRpcs.ts"
import * as HostName from "../protocol/bytes/HostName.ts"
import { renderHostPort } from "../protocol/bytes/SocketAddr.ts"
import { type Target, VERDICTS } from "../protocol/flow/FlowWire.ts"
import * as DirectoryTime from "../protocol/trust/DirectoryTime.ts"
import * as Documents from "../protocol/trust/Documents.ts"
import type { NodeKey } from "../protocol/trust/NodeKey.ts"
import * as Signed from "../protocol/trust/Signed.ts"
import * as DocumentPair from "../session/core/DocumentPair.ts"
import { SessionTable } from "../session/core/SessionTable.ts"
import * as SharedDials from "../session/core/SharedDials.ts"
import * as BrowserKey from "./BrowserKey.ts"
import * as Flow from "./Flow.ts"
import { Session } from "./PageSession.ts"

/**
 * Error when a flow could not be opened. `code` says why:
 * - `refused`, `unreachable`, `timed_out`: the resource's answer.
 * - `no_connector`, `connector_declined`, `overloaded`: the relay could not arrange a session.
 * - `no_connection`: WebRTC found no path to the connector.
 * - `relay_gone`: the link to the relay has ended.
 * - Any other code is the reason why the relay or the connector does not permit the flow.
 */
export class OpenFailed extends Schema.TaggedError<OpenFailed>()("OpenFailed", {
  code: Schema.Literal(
    ...VERDICTS,
    "no_connector",
    "connector_declined",
    "overloaded",
    "no_connection",
    "relay_gone"
  ),
  message: Schema.String
}) {}

/** A session of this page with a connector, and its path. */
export interface Peer {
  /** Name of the connector. */
  readonly connector: string
  /**
   * Type of the chosen local candidate (RFC 8445, section 5.1.1); `relay` is TURN. `null` if none
   * is chosen yet.
   */
  readonly local: string | null
  /** Type of the chosen remote candidate. `null` if none is chosen yet. */
  readonly remote: string | null
  /** Round trip between this page and the connector. `null` if it has not been measured yet. */
  readonly rttMs: number | null
  /** Number of flows that are open or being opened now. */
  readonly flows: number
  /** Bytes received by the session's open WebRTC connections. */
  readonly bytesIn: number
  /** Bytes sent by the session's open WebRTC connections. */
  readonly bytesOut: number
}

type Client = RpcClient.RpcClient<RpcGroup.Rpcs<typeof RelaySignalingRpcs>, RpcClientError>

/** Options of {@link make}. */
export interface Options {
  readonly client: Client
  readonly authorityKey: NodeKey
  readonly nodeKey: NodeKey
  readonly keys: BrowserKey.KeyPair
}

const fail = (code: OpenFailed["code"], message: string) => new OpenFailed({ code, message })

/** Makes the sessions of one connection to a relay. They end with the scope. */
export const make = Effect.fnUntraced(function*({ authorityKey, client, keys, nodeKey }: Options) {
  const sessions = new SessionTable<Session>(Infinity)
  const hostMs = () => performance.now()
  const time = new DirectoryTime.DirectoryTime(hostMs)
  /** The relay's own STUN server, as an ICE server. The first snapshot from the relay names it. */
  const stun = yield* Deferred.make<ReadonlyArray<RTCIceServer>>()
  const nowSeconds = () => time.nowSeconds()
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const session of sessions) session.close("this page has ended the connection")
    })
  )

  /** Verifies and decodes a signed document from the relay. The relay itself is not trusted. */
  const opened = <K extends Documents.Kind>(kind: K, signed: Signed.Signed) =>
    Effect.flatMap(
      Effect.promise(() =>
        BrowserKey.verify(authorityKey, Signed.signedBytes(kind, signed.payload), signed.signature).catch(() => false)
      ),
      (isSigned) => Documents.open(kind, signed, () => isSigned, nowSeconds())
    ).pipe(Effect.mapError(({ message }) => fail("denied", `the relay's answer is not to be relied on: ${message}`)))

  const onEvent = (event: SignalingEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Snapshot":
        return Effect.sync(() => {
          const sample = { directoryMs: event.serverTime, sentAt, receivedAt: hostMs() }
          time.set(DirectoryTime.offsetOf(DirectoryTime.learn(null, sample)))
          const { host, udpPort } = event.relay
          const urls = udpPort === 0 ? [] : [`stun:${renderHostPort({ host, port: udpPort })}`]
          Deferred.unsafeDone(stun, Exit.succeed(urls.map((url) => ({ urls: url }))))
        })
      case "Sealed":
        return Effect.sync(() => sessions.get(event.session)?.onBox(event.box))
      case "SessionLost":
        return Effect.sync(() => sessions.get(event.session)?.close("the connector has lost this session"))
      case "GrantReplaced":
        return opened("grant", event.grant).pipe(
          Effect.map((grant) => sessions.get(event.session)?.setGrant({ grant, signed: event.grant })),
          Effect.ignore
        )
      case "Invite":
      case "Revoked":
      case "RelaysChanged":
      case "TicketRenewed":
      case "BindingsLost":
      case "CredentialRenewed":
      case "Examine":
      case "GoAway":
        return Effect.void
    }
  }
  const sentAt = hostMs()
  yield* Effect.forkScoped(Effect.ignore(Stream.runForEach(client.Watch(), onEvent)))

  const servers = turnServersOf(client)

  const begin = Effect.fnUntraced(function*({ connectorKey, connectorName, grant, ticket }: Dialed) {
    // Documents are judged by the directory's time, which comes with the first snapshot.
    const stunServers = yield* Deferred.await(stun)
    const documents = { grant: yield* opened("grant", grant), ticket: yield* opened("ticket", ticket) }
    const reason = DocumentPair.mismatch(documents.grant, documents.ticket, { role: "client", key: nodeKey })
    if (reason !== null || documents.ticket.connectorKey !== connectorKey) {
      return yield* fail("denied", "the relay's answer is for others")
    }
    const id = documents.ticket.session
    let last = ticket
    let turnServers = yield* Effect.orElseSucceed(servers, (): ReadonlyArray<RTCIceServer> => [])
    const renew = Effect.gen(function*() {
      const fresh = yield* client.Renew({ ticket: last })
      last = fresh.ticket
      // A later connection of this session may be made when the first credentials have expired.
      turnServers = yield* Effect.orElseSucceed(servers, () => turnServers)
      return { grant: yield* opened("grant", fresh.grant), signed: fresh.grant }
    })
    return yield* Effect.tryPromise({
      try: () =>
        Session.open({
          ...documents,
          connectorName,
          iceServers: () => [...stunServers, ...turnServers],
          clocks: { hostMs, nowSeconds },
          sign: (message) => BrowserKey.sign(keys, message),
          forward: (box) => void Effect.runFork(Effect.ignore(client.Forward({ session: id, box }))),
          renew: () => Effect.runPromise(renew),
          onDown: () => sessions.remove(id)
        }, (session) => sessions.add(id, session)),
      catch: (error) => fail("no_connection", error instanceof Error ? error.message : String(error))
    })
  })

  const dial = ({ host, kind, port }: Target) =>
    client.Dial({ target: { host, port, protocol: kind }, exclude: [] }).pipe(
      Effect.catchTags({
        DialRefused: ({ code, message }) => Effect.fail(fail(code, message)),
        RpcClientError: ({ message }) =>
          Effect.fail(fail("relay_gone", `the link to the relay has ended (${message}); connect again`))
      }),
      Effect.flatMap(begin)
    )

  /** Returns a session that permits the target, dialling one if there is none. */
  const obtain = SharedDials.make<Session, OpenFailed>({
    find: (target) => sessions.find((session) => session.isConnected && session.permits(target)),
    dial,
    broken: (cause) => fail("internal", String(Cause.squash(cause)))
  })

  const openTcp = Effect.fnUntraced(function*(asked: string, port: number) {
    const host = HostName.toAscii(asked) ?? asked
    const target: Target = { kind: "tcp", host, port }
    const session = yield* obtain(target)
    return yield* openIn(session, target)
  })

  return { openTcp, peers: Effect.promise(() => Promise.all(sessions.all().map(peerOf))) } as const
})

/** Opens a flow in a session. Interruption cancels it. */
const openIn = (session: Session, target: Target): Effect.Effect<Flow.Flow, OpenFailed> => {
  const at = `${target.host}:${target.port}`
  return Effect.async<Flow.Flow, OpenFailed>((resume) => {
    const giveUp = session.openFlow(target, (answer) => {
      if (answer._tag === "Rejected") {
        const { code, reason } = answer.verdict
        return resume(
          Effect.fail(fail(code, reason === "" ? `${at}: ${code}` : `${at}: ${reason}`))
        )
      }
      const flow = Flow.make(answer.stream, answer.rest)
      void flow.closed.then(() => session.flowEnded())
      resume(Effect.succeed(flow))
    })
    return Effect.sync(giveUp)
  })
}

const peerOf = async (session: Session): Promise<Peer> => {
  const { bytesIn, bytesOut, local, remote, rttMs } = await session.stats()
  return { connector: session.connector, local, remote, rttMs, flows: session.flows, bytesIn, bytesOut }
}

/** Fetches the relay's TURN server with new credentials, as an ICE server. */
const turnServersOf = (client: Client) =>
  client.TurnCredentials().pipe(
    Effect.map(({ password, urls, username }): ReadonlyArray<RTCIceServer> => [
      { urls: [...urls], username, credential: Redacted.value(password) }
    ])
  )
