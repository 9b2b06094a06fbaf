/**
 * The relay's signaling in the simulation: the real board and the real signing and renewal of documents, over a directory of two
 * nodes whose resources the test changes. Its calls are modelled after the SignalingHubActor, which has sockets and a database.
 */
import { Deferred, Effect, Either, Exit, Mailbox, Option, Schedule, type Stream } from "effect"
import * as Board from "../../../src/actors/hub/Board.ts"
import * as SignedDocuments from "../../../src/actors/hub/SignedDocuments.ts"
import { type Dialed, DialRefused, type SignalingEvent } from "../../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { Role } from "../../../src/protocol/path/PathRef.ts"
import type { Resource } from "../../../src/protocol/trust/Documents.ts"
import { LIFETIMES } from "../../../src/protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../../src/protocol/trust/NodeKey.ts"
import type { Signed } from "../../../src/protocol/trust/Signed.ts"
import * as Authority from "../../../src/services/identity/Authority.ts"
import type { Identities } from "./Identities.ts"

const NETWORK = "default"
const POLL = "5 seconds"

const nowSeconds = () => Math.floor(Date.now() / 1000)

export class SimHub {
  readonly #identities: Identities
  readonly #board = Board.make()
  readonly #signed: ReturnType<typeof SignedDocuments.make>
  #resources: ReadonlyArray<Resource> = []
  /** End of the newest ticket by session, and of the newest credential by node, in epoch seconds. */
  readonly ends = new Map<string, number>()

  constructor(identities: Identities) {
    const { authority, connector } = identities
    this.#identities = identities
    this.#signed = SignedDocuments.make({
      board: this.#board,
      authority: {
        ...authority,
        ticket: (fields) =>
          Effect.tap(authority.ticket(fields), () => this.ends.set(fields.session, nowSeconds() + LIFETIMES.ticket)),
        credential: (key) =>
          Effect.tap(authority.credential(key), () => this.ends.set(key, nowSeconds() + LIFETIMES.credential))
      },
      directory: {
        findNode: (key) =>
          Effect.succeed(Option.some(
            key === connector.key
              ? { key, name: "office", role: "connector", network: NETWORK }
              : { key, name: "laptop", role: "client", network: null }
          ) as never),
        allResourcesFor: () => Effect.sync(() => this.#resources)
      }
    })
  }

  /** What runs for as long as the hub: renewed credentials, and sessions that are forgotten. */
  get run(): Effect.Effect<unknown> {
    const expire = Effect.sync(() => this.#board.expire(nowSeconds()))
    return Effect.zipRight(
      this.#signed.keepCredentialsFresh,
      Effect.repeat(expire, Schedule.spaced(POLL)),
      { concurrent: true }
    )
  }

  /** The first credential of a node that signs in. */
  credential(key: NodeKey): Effect.Effect<Signed> {
    this.ends.set(key, nowSeconds() + LIFETIMES.credential)
    return this.#identities.authority.credential(key)
  }

  /** The events of a node from now on. */
  connect(key: NodeKey, role: Role): Stream.Stream<SignalingEvent> {
    const member = { key, name: role, shown: role, role, network: role === "client" ? null : NETWORK }
    const events = Effect.runSync(
      Mailbox.make<SignalingEvent>({ capacity: Board.EVENTS_CAPACITY, strategy: "dropping" })
    )
    this.#board.join({ member, isBrowser: false, since: 0, events, cut: () => undefined })
    return Mailbox.toStream(events)
  }

  /** A change of the rules: what the client may reach from now on. */
  permit(...names: ReadonlyArray<string>): Effect.Effect<void> {
    this.#resources = names.map((name) => ({
      name,
      network: NETWORK,
      address: `${name}.internal`,
      tcp: [{ from: 80, to: 80 }],
      udp: [],
      allowLoopback: false
    }))
    return Effect.orDie(this.#signed.replaceGrants)
  }

  /** Arranges a session with the connector, as soon as that has answered. */
  dial(clientKey: NodeKey, resource: string): Effect.Effect<Dialed, DialRefused> {
    return Effect.gen(this, function*() {
      if (!this.#resources.some(({ name }) => name === resource)) {
        return yield* new DialRefused({ code: "denied", message: "no rule permits it" })
      }
      const { key: connectorKey } = this.#identities.connector
      const names = yield* Authority.newSession
      const documents = yield* Effect.orDie(
        this.#signed.forSession({ ...names, clientKey, connectorKey }, NETWORK, resource)
      )
      const { grant, ticket } = documents
      const answer = yield* Deferred.make<void, string>()
      this.#board.addSession({
        id: names.session,
        client: clientKey,
        connector: connectorKey,
        network: NETWORK,
        ...names,
        expiresAt: nowSeconds() + LIFETIMES.ticket,
        answer
      })
      this.#board.send(connectorKey, { _tag: "Invite", session: names.session, grant, ticket })
      yield* Effect.mapError(
        Deferred.await(answer),
        (message) => new DialRefused({ code: "connector_declined", message })
      )
      return { session: names.session, connectorKey, connectorName: "office", grant, ticket } satisfies Dialed
    })
  }

  ready(session: string, connector: NodeKey): Effect.Effect<void> {
    return Effect.asVoid(this.#board.answer(session, connector, Exit.void))
  }

  decline(session: string, connector: NodeKey, reason: string): Effect.Effect<void> {
    return Effect.asVoid(this.#board.answer(session, connector, Exit.fail(reason)))
  }

  renew(old: Signed): Effect.Effect<{ readonly grant: Signed; readonly ticket: Signed }, DialRefused> {
    return Effect.gen(this, function*() {
      const { authorityKey } = this.#identities
      const ticket = yield* Either.mapLeft(
        Authority.verify("ticket", old, authorityKey, nowSeconds()),
        ({ message }) => new DialRefused({ code: "denied", message })
      )
      const { expiresAt: _, ...session } = ticket
      const fresh = yield* Effect.orDie(this.#signed.forSession(session, NETWORK, null))
      const known = this.#board.sessions.get(ticket.session)
      if (known !== undefined) known.expiresAt = nowSeconds() + LIFETIMES.ticket
      this.#board.send(ticket.connectorKey, { _tag: "TicketRenewed", session: ticket.session, ticket: fresh.ticket })
      return { grant: fresh.grant, ticket: fresh.ticket }
    })
  }
}
