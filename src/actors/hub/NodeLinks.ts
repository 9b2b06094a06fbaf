/**
 * The links of nodes: which nodes are let in, what happens while a node is connected, and what it
 * hears. The directory is asked every time. The `Board` holds which nodes are connected.
 */
import { Clock, Effect, Mailbox, Option, Redacted, Stream } from "effect"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as Signed from "../../protocol/trust/Signed.ts"
import type * as Directory from "../../services/directory/Directory.ts"
import type * as Authority from "../../services/identity/Authority.ts"
import * as DirectoryClock from "../../services/identity/DirectoryClock.ts"
import type { Link } from "../../session/Link.ts"
import * as LinkServer from "../../transport/link/LinkServer.ts"
import { NO_BROWSER, type RelayInfo, type SignalingEvent, UNKNOWN_NODE } from "../signaling/RelaySignalingRpcs.ts"
import * as Board from "./Board.ts"
import type * as RemovedNodes from "./RemovedNodes.ts"

/** Options of {@link make}. */
export interface Options {
  readonly board: ReturnType<typeof Board.make>
  readonly directory: Pick<
    typeof Directory.Directory.Service,
    "enrol" | "findNode" | "latestAuditId" | "relays"
  >
  readonly authority: Pick<typeof Authority.Authority.Service, "membership" | "credential">
  readonly removed: Pick<ReturnType<typeof RemovedNodes.make>, "eventsFor">
  /** Addresses of the relay, as nodes receive them. */
  readonly relay: RelayInfo
  /**
   * Whether pages in browsers are let in. A page cannot prove which certificate it saw. So it is
   * let in only where nodes, too, trust the public authorities, and only as a client.
   */
  readonly browsers: boolean
  /** Hands a link for packets to the forwarder, until one of them ends. */
  readonly bridge: (link: Link, node: NodeKey) => Effect.Effect<void>
  /** Answers the calls of a link for signaling, until the link ends. */
  readonly serve: (link: Link, node: NodeKey) => Effect.Effect<void>
  /** Called when a node has connected for signaling. */
  readonly onConnected: (node: NodeKey) => Effect.Effect<void>
}

/** Makes the functions with which a link server lets nodes in and serves them. */
export const make = (options: Options) => {
  const { authority, board, bridge, browsers, directory, onConnected, relay, removed, serve } = options

  const authenticate = Effect.fn("SignalingHub.authenticate")(
    function*({ enrol, nodeKey, purpose }: LinkServer.Peer) {
      if (purpose === "browser" && !browsers) return yield* noBrowser(NEEDS_CA)
      if (enrol !== undefined) {
        const { secret, tokenId } = enrol
        const onlyAs = purpose === "browser" ? "client" : enrol.role ?? null
        const onlyNamed = enrol.name ?? null
        yield* directory.enrol({ tokenId, secret: Redacted.make(secret), nodeKey, onlyAs, onlyNamed })
      }
      const found = yield* directory.findNode(nodeKey)
      if (Option.isNone(found)) {
        return yield* new LinkServer.LinkRefused({
          code: UNKNOWN_NODE,
          message: "this node is not enrolled here, or was removed; enrol it with a new token"
        })
      }
      const { name, network, role, shown } = found.value
      if (purpose === "browser" && role !== "client") return yield* noBrowser(`${shown} is a ${role}`)
      return Signed.toBytes(yield* authority.membership({ nodeKey, name, role, network }))
    },
    Effect.catchAll((error) =>
      error._tag === "LinkRefused"
        ? Effect.fail(error)
        : Effect.fail(new LinkServer.LinkRefused({ code: error._tag, message: error.message }))
    )
  )

  const onLink = Effect.fnUntraced(function*(link: Link, { nodeKey, purpose }: LinkServer.Peer) {
    const found = yield* Effect.option(Effect.flatten(directory.findNode(nodeKey)))
    if (Option.isNone(found)) return
    if (purpose === "relay") return yield* bridge(link, nodeKey)
    const events = yield* Mailbox.make<SignalingEvent>({ capacity: Board.EVENTS_CAPACITY, strategy: "dropping" })
    const entry: Board.Link = {
      member: found.value,
      isBrowser: purpose === "browser",
      since: yield* Clock.currentTimeMillis,
      events,
      cut: (why) => link.close(why)
    }
    const { role, shown: name } = found.value
    board.join(entry)
    yield* onConnected(nodeKey)
    yield* Effect.logInfo("node connected").pipe(Effect.annotateLogs({ name, role, carrier: link.carrier }))
    const leave = Effect.suspend(() => {
      board.leave(entry)
      return Effect.zipRight(
        events.shutdown,
        Effect.logInfo("node disconnected").pipe(Effect.annotateLogs({ name, role }))
      )
    })
    yield* Effect.ensuring(serve(link, nodeKey), leave)
  }, Effect.scoped)

  /** Events for a node: first a snapshot, then the nodes that it must no longer trust. */
  const watch = (node: NodeKey) =>
    Stream.unwrap(Effect.gen(function*() {
      const link = board.links.get(node)
      if (link === undefined) return Stream.empty
      const snapshot: SignalingEvent = {
        _tag: "Snapshot",
        version: yield* Effect.orDie(directory.latestAuditId),
        serverTime: yield* DirectoryClock.nowMs,
        relay,
        relays: yield* Effect.orDie(directory.relays),
        credential: yield* authority.credential(node),
        reports: true
      }
      const revoked = yield* Effect.orDie(removed.eventsFor(link.member.role))
      return Stream.concat(Stream.fromIterable([snapshot, ...revoked]), Mailbox.toStream(link.events))
    }))

  return { authenticate, onLink, watch } as const
}

const noBrowser = (why: string) =>
  new LinkServer.LinkRefused({ code: NO_BROWSER, message: `this relay accepts no browsers: ${why}` })
const NEEDS_CA = "browsers trust only certificates of public authorities; set tls in the relay's configuration"
