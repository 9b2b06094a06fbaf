/**
 * Who is connected to the relay and which sessions it has arranged. Plain state of the SignalingHubActor, changed by
 * synchronous calls only. Every event for a node goes through its bounded mailbox: one that does not read is cut off.
 */
import { Deferred, Effect, type Exit, type Mailbox } from "effect"
import type { NodeRole } from "../../protocol/Documents.ts"
import type { NodeKey } from "../../protocol/NodeKey.ts"
import type { SessionId, SignalingEvent } from "../RelaySignalingRpcs.ts"

/** What one link has not read yet; past this it is cut, and learns all from a snapshot when it is back. */
export const EVENTS_CAPACITY = 1024
/** Sessions that the relay remembers for one client; the oldest is forgotten, and cannot be renewed any more. */
export const MAX_SESSIONS_PER_NODE = 256

export interface Member {
  readonly key: NodeKey
  readonly name: string
  readonly role: NodeRole
  readonly network: string | null
}

export interface Link {
  readonly member: Member
  /** A page, which WebRTC reaches and QUIC does not. */
  readonly isBrowser: boolean
  /** Epoch ms. */
  readonly since: number
  readonly events: Mailbox.Mailbox<SignalingEvent>
  readonly cut: (why: string) => void
}

export interface Session {
  readonly id: SessionId
  readonly client: NodeKey
  readonly connector: NodeKey
  readonly network: string
  readonly clientTag: string
  readonly connectorTag: string
  /** Epoch seconds: the later of its documents' ends. */
  expiresAt: number
  /** Done with whether the connector takes part. */
  readonly answer: Deferred.Deferred<void, string>
}

export const make = () => {
  const links = new Map<NodeKey, Link>()
  const sessions = new Map<SessionId, Session>()

  const send = (node: NodeKey, event: SignalingEvent): boolean => {
    const link = links.get(node)
    if (link === undefined) return false
    if (link.events.unsafeOffer(event)) return true
    link.cut("too slow: its events are not read")
    return false
  }

  return {
    links,
    sessions,
    send,
    /** A node has one link; a newer one takes the place of an older, which may be half open. */
    join: (link: Link) => {
      links.get(link.member.key)?.cut("replaced by a newer link of the same node")
      links.set(link.member.key, link)
    },
    leave: (link: Link) => {
      if (links.get(link.member.key) === link) links.delete(link.member.key)
    },
    addSession: (session: Session) => {
      const own = [...sessions.values()].filter(({ client }) => client === session.client)
      if (own.length >= MAX_SESSIONS_PER_NODE && own[0] !== undefined) sessions.delete(own[0].id)
      sessions.set(session.id, session)
    },
    /** The session, if this node is one of its ends. */
    sessionOf: (id: SessionId, node: NodeKey): Session | undefined => {
      const session = sessions.get(id)
      return session !== undefined && (session.client === node || session.connector === node) ? session : undefined
    },
    answer: (id: SessionId, node: NodeKey, exit: Exit.Exit<void, string>) =>
      Effect.suspend(() => {
        const session = sessions.get(id)
        return session === undefined || session.connector !== node ? Effect.void : Deferred.done(session.answer, exit)
      }),
    expire: (nowSeconds: number) => {
      for (const session of sessions.values()) if (session.expiresAt <= nowSeconds) sessions.delete(session.id)
    }
  } as const
}
