/**
 * Arranges new sessions. The directory decides whether a client may reach a target. Then connectors
 * of the target's network are invited, one after the other, until one accepts.
 */
import { Deferred, Effect, Exit, Random } from "effect"
import { LIFETIMES } from "../../../protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import type * as Directory from "../../../services/directory/Directory.ts"
import * as Authority from "../../../services/identity/Authority.ts"
import * as DirectoryClock from "../../../services/identity/DirectoryClock.ts"
import * as Tracing from "../../../services/telemetry/Tracing.ts"
import { nowMs } from "../../../session/MonotonicClock.ts"
import { type Dialed, DialRefused, type SessionId, type Target } from "../../signaling/RelaySignalingRpcs.ts"
import type * as Board from "../Board.ts"
import { ConnectorOrder } from "../ConnectorOrder.ts"
import type { HubMetrics } from "../HubMetrics.ts"
import * as Invites from "../Invites.ts"
import type { NodeRates } from "../NodeRates.ts"
import type * as SignedDocuments from "../SignedDocuments.ts"

/** How long the relay remembers a session: the life of its ticket. A renewal starts it again. */
export const SESSION_MEMORY_SECONDS = LIFETIMES.ticket

/** Options of {@link make}. */
export interface Options {
  readonly board: ReturnType<typeof Board.make>
  readonly directory: Pick<typeof Directory.Directory.Service, "authorize">
  readonly signed: Pick<ReturnType<typeof SignedDocuments.make>, "forSession">
  readonly rates: Pick<NodeRates, "mayDial">
  readonly metrics: Pick<HubMetrics, "onDial">
}

/** Makes the desk that answers dials and receives the answers of connectors. */
export const make = ({ board, directory, metrics, rates, signed }: Options) => {
  const invite = Effect.fnUntraced(
    function*(client: NodeKey, connector: Board.Member, network: string, resource: string) {
      const names = yield* Authority.newSession
      const { session } = names
      const ends = { clientKey: client, connectorKey: connector.key }
      const { grant, outage, ticket } = yield* signed.forSession({ ...names, ...ends }, network, resource)
      const answer = yield* Deferred.make<void, string>()
      const expiresAt = (yield* DirectoryClock.nowSeconds) + SESSION_MEMORY_SECONDS
      board.addSession({ id: session, client, connector: connector.key, network, ...names, expiresAt, answer })
      const asking = board.links.get(client)
      board.send(connector.key, {
        _tag: "Invite",
        session,
        grant,
        outage,
        ticket,
        ...(asking === undefined ? {} : { clientName: asking.member.shown }),
        ...(asking?.isBrowser === true ? { over: "webrtc" } : {}),
        ...yield* Tracing.header
      })
      // The relay remembers only some sessions of a client. One that was not accepted must not take
      // the place of a live one.
      yield* Effect.onError(Deferred.await(answer), () => Effect.sync(() => board.sessions.delete(session)))
      const dialed: Dialed = {
        session,
        connectorKey: connector.key,
        connectorName: connector.shown,
        grant,
        outage,
        ticket
      }
      return dialed
    },
    Effect.mapError((why) => typeof why === "string" ? why : "the directory has no such node any more")
  )

  const order = new ConnectorOrder(board.load)
  const isBrowser = (client: NodeKey) => board.links.get(client)?.isBrowser === true
  const onAnswer = Effect.fnUntraced(function*(session: SessionId, node: NodeKey, answer: Exit.Exit<void, string>) {
    const link = board.links.get(node)
    const known = board.sessionOf(session, node)
    if (link !== undefined) order.onHeard(link)
    if (link !== undefined && known !== undefined) {
      order.onAnswer(link, isBrowser(known.client), Exit.isSuccess(answer), yield* nowMs)
    }
    return yield* board.answer(session, node, answer)
  })

  const dial = Effect.fn("SignalingHub.dial")(
    function*(node: NodeKey, target: Target, exclude: ReadonlyArray<NodeKey>) {
      const { network, resource } = yield* directory.authorize({ clientKey: node, ...target })
      const online = [...board.links.values()].filter(({ member }) =>
        member.role === "connector" && member.network === network && !exclude.includes(member.key)
      )
      if (online.length === 0) {
        return yield* refuse("no_connector", `no connector of network ${network} is connected; start one`)
      }
      if (!rates.mayDial(node, yield* nowMs)) {
        return yield* refuse("overloaded", "this client asks for sessions too often; wait some seconds")
      }
      const first = Invites.first({
        links: order.sort([...yield* Random.shuffle(online)], isBrowser(node), yield* nowMs),
        onSilent: (link, now) => order.onSilent(link, now),
        invite: (connector) => invite(node, connector, network, resource.name)
      })
      return yield* Effect.catchAll(
        first,
        (why) => refuse("connector_declined", `no connector accepted the session (${why})`)
      )
    },
    Effect.catchTags({
      Denied: ({ message }) => refuse("denied", message),
      UnknownResource: ({ message }) => refuse("name_not_found", message),
      PortNotListed: ({ message }) => refuse("port_not_listed", message),
      DirectoryError: ({ message }) => refuse("overloaded", message)
    }),
    Effect.tapBoth({
      onFailure: ({ code }) => Effect.sync(() => metrics.onDial(code)),
      onSuccess: () => Effect.sync(() => metrics.onDial("accepted"))
    })
  )

  return {
    dial,
    /** The connector accepts its invitation. */
    ready: (session: SessionId, node: NodeKey) => onAnswer(session, node, Exit.void),
    /** The connector declines its invitation. */
    decline: (session: SessionId, node: NodeKey, reason: string) => onAnswer(session, node, Exit.fail(reason))
  } as const
}

const refuse = (code: DialRefused["code"], message: string) => Effect.fail(new DialRefused({ code, message }))
