/**
 * Signs the documents that nodes need to talk to each other, and replaces them in time: grants and
 * tickets of sessions, and relay credentials. Every function reads which nodes are connected when
 * it runs, so a periodic job sees the nodes and sessions of that moment.
 */
import { Duration, Effect, Schedule } from "effect"
import type { Ticket } from "../../protocol/trust/Documents.ts"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type * as Directory from "../../services/directory/Directory.ts"
import type * as Authority from "../../services/identity/Authority.ts"
import type * as Board from "./Board.ts"

/**
 * Time between two relay credentials of a node. It is short enough that one of them may be lost.
 */
export const CREDENTIAL_REFRESH = Duration.seconds(LIFETIMES.credentialRefresh)

/** Options of {@link make}. */
export interface Options {
  readonly board: ReturnType<typeof Board.make>
  readonly authority: typeof Authority.Authority.Service
  readonly directory: Pick<typeof Directory.Directory.Service, "allResourcesFor" | "findNode">
  readonly credentialRefresh?: Duration.Duration
}

/** Returns the effects that sign, replace and renew documents. */
export const make = ({ authority, board, credentialRefresh = CREDENTIAL_REFRESH, directory }: Options) => {
  /**
   * The grant, its outage permit, and the ticket of a session. The grant names every resource that
   * the client may reach through this connector; `first` names the one that must not be left out
   * for want of room. `empty`: the client may reach none. Fails if the directory no longer has one
   * of the two nodes.
   */
  const forSession = Effect.fnUntraced(function*(
    session: Omit<Ticket, "expiresAt">,
    network: string,
    first: string | null
  ) {
    const [client, connector] = yield* Effect.all([
      Effect.flatten(directory.findNode(session.clientKey)),
      Effect.flatten(directory.findNode(session.connectorKey))
    ])
    const resources = yield* directory.allResourcesFor(client.key, network)
    const grant = yield* authority.grant({
      clientKey: client.key,
      clientName: client.name,
      connectorKey: connector.key,
      connectorName: connector.name,
      resources: resources.toSorted((left, right) => Number(right.name === first) - Number(left.name === first))
    })
    return {
      grant: grant.signed,
      outage: yield* authority.outage(grant.id),
      ticket: yield* authority.ticket(session),
      empty: resources.length === 0
    }
  })

  const regrantOne = Effect.fnUntraced(function*(session: Board.Session) {
    const { client: clientKey, clientTag, connector: connectorKey, connectorTag, id, network } = session
    const fresh = yield* forSession({ session: id, clientKey, connectorKey, clientTag, connectorTag }, network, null)
    for (const node of [clientKey, connectorKey]) {
      board.send(node, { _tag: "GrantReplaced", session: id, grant: fresh.grant, outage: fresh.outage })
    }
  })

  /**
   * Sends every session the grant that it would get now. Run it after a change of resources or
   * access rules: the connector cuts the flows that the new grant no longer permits. Fails if the
   * directory cannot be read; then run it again, because some sessions may have their old grant.
   */
  const replaceGrants = Effect.suspend(() =>
    Effect.forEach(
      [...board.sessions.values()],
      // A removed node needs no grant: its sessions are ended by `Revoked`.
      (session) => Effect.catchTag(regrantOne(session), "NoSuchElementException", () => Effect.void),
      { discard: true }
    )
  )

  const renewCredential = (node: NodeKey) =>
    Effect.map(authority.credential(node), (credential) => board.send(node, { _tag: "CredentialRenewed", credential }))

  /** Sends every connected node a new relay credential. */
  const renewCredentials = Effect.suspend(() =>
    Effect.forEach([...board.links.keys()], renewCredential, { discard: true })
  )

  return {
    forSession,
    replaceGrants,
    /** Renews the credentials of connected nodes for as long as it runs. Never ends. */
    keepCredentialsFresh: Effect.schedule(renewCredentials, Schedule.spaced(credentialRefresh))
  } as const
}
