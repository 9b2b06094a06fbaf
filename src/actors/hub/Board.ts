/**
 * The nodes connected to the relay, and the sessions it has arranged. This is plain state of the
 * SignalingHubActor, changed only by synchronous calls. Every event for a node goes through its
 * bounded mailbox. A node that does not read is cut off.
 */
import { Deferred, Effect, type Exit, type Mailbox } from "effect"
import type { NodeRole } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { SessionId, SignalingEvent } from "../signaling/RelaySignalingRpcs.ts"

/**
 * Most events that one link may leave unread. If there are more, the relay cuts the link, and the
 * node gets a snapshot when it reconnects.
 */
export const EVENTS_CAPACITY = 1024
/**
 * Most sessions that the relay remembers for one client. For one more, it forgets the oldest: that
 * session's sealed messages are refused and its grant is not replaced until the client renews it.
 */
export const MAX_SESSIONS_PER_NODE = 256

/** A node as the directory knows it. */
export interface Member {
  readonly key: NodeKey
  /** Name as it is compared and signed. */
  readonly name: string
  /** Name as the administrator wrote it. */
  readonly shown: string
  readonly role: NodeRole
  readonly network: string | null
}

/** The link of one connected node. */
export interface Link {
  readonly member: Member
  /** Whether the node is a page in a browser, which is reached by WebRTC and not by QUIC. */
  readonly isBrowser: boolean
  /** When the node connected, in ms since the epoch. */
  readonly since: number
  readonly events: Mailbox.Mailbox<SignalingEvent>
  /** Ends the link. The node receives the reason. */
  readonly cut: (why: string) => void
}

/** A session that the relay has arranged. */
export interface Session {
  readonly id: SessionId
  readonly client: NodeKey
  readonly connector: NodeKey
  readonly network: string
  readonly clientTag: string
  readonly connectorTag: string
  /** When the relay forgets the session, in epoch seconds. */
  expiresAt: number
  /** Done when the connector accepts. Fails with its reason when it declines. */
  readonly answer: Deferred.Deferred<void, string>
}

/** Makes an empty board. */
export const make = () => {
  const links = new Map<NodeKey, Link>()
  const sessions = new Map<SessionId, Session>()

  /**
   * Queues an event for a node. Returns `false` if the node is not connected or was cut off because
   * its queue is full.
   */
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
    /**
     * Adds a node's link. A node has one link, so the new one replaces an older one, which may be
     * half open.
     */
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
    /** Counts the sessions with this connector, which were arranged or renewed in the last hour. */
    load: (connector: NodeKey): number => {
      let count = 0
      for (const session of sessions.values()) if (session.connector === connector) count++
      return count
    },
    /** Returns the session, if this node is one of its ends. */
    sessionOf: (id: SessionId, node: NodeKey): Session | undefined => {
      const session = sessions.get(id)
      return session !== undefined && (session.client === node || session.connector === node) ? session : undefined
    },
    /**
     * Passes on the connector's answer to an invitation. Ignored if the node is not the session's
     * connector.
     */
    answer: (id: SessionId, node: NodeKey, exit: Exit.Exit<void, string>) =>
      Effect.suspend(() => {
        const session = sessions.get(id)
        return session === undefined || session.connector !== node ? Effect.void : Deferred.done(session.answer, exit)
      }),
    /** Forgets the sessions whose time is over. */
    expire: (nowSeconds: number) => {
      for (const session of sessions.values()) if (session.expiresAt <= nowSeconds) sessions.delete(session.id)
    }
  } as const
}
