/**
 * The relay link that carries packets where UDP does not reach. It is opened, used and closed on
 * the data thread.
 */
import { Deferred, Effect, ExecutionStrategy, Exit, Scope } from "effect"
import * as PathKind from "../../protocol/path/PathKind.ts"
import type { NodeState } from "../../services/identity/NodeState.ts"
import * as RelayAddresses from "../../services/network/RelayAddresses.ts"
import * as LinkClient from "../../transport/link/LinkClient.ts"
import { sendEach } from "../../transport/link/LinkToPort.ts"
import { RelayLinkFrames } from "../../transport/link/RelayLinkFrames.ts"
import type { Leg } from "../../transport/plane/PacketRouter.ts"
import type { LegKind } from "../relay/RelayRpcs.ts"
import { LinkUnavailable } from "./StreamMuxRpcs.ts"

/** The packet link of this node. At most one is open. */
export interface PacketLink {
  /**
   * Closes the link that is open, if any, and opens a new one. `http3` is whether the relay accepts
   * links over HTTP/3.
   */
  readonly open: (http3: boolean) => Effect.Effect<LegKind, LinkUnavailable>
  readonly close: Effect.Effect<void>
  /** Waits until the open link ends. Returns at once if none is open. */
  readonly ended: Effect.Effect<void>
  /** Leg by which the router sends. `null` if no link is open. */
  readonly leg: () => Exclude<Leg, { readonly kind: "relay-udp" }> | null
}

interface Open {
  readonly scope: Scope.CloseableScope
  readonly leg: Exclude<Leg, { readonly kind: "relay-udp" }>
  readonly ended: Deferred.Deferred<void>
}

/** Makes the packet link. It is closed at first. An open link closes when the scope ends. */
export const make = Effect.fnUntraced(function*(options: {
  readonly node: NodeState
  readonly stateDir: string
  readonly carrier: "auto" | "webtransport" | "websocket"
  readonly proxy: string | null
  readonly ca: string | null
  /** Takes whole relayed frames, which are valid only during the call. */
  readonly onFrame: (frame: Uint8Array) => void
}) {
  const { node } = options
  const parent = yield* Effect.scope
  let current: Open | null = null

  const close = Effect.suspend(() => {
    const open = current
    current = null
    return open === null ? Effect.void : Scope.close(open.scope, Exit.void)
  })

  const open = Effect.fnUntraced(function*(http3: boolean) {
    yield* close
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const ended = yield* Deferred.make<void>()
    const { link } = yield* LinkClient.connect({
      host: node.relay.host,
      lastAddresses: yield* RelayAddresses.known(options.stateDir, node.relay.host),
      port: node.relay.httpsPort,
      trust: node.relay.tls,
      carrier: options.carrier,
      proxy: options.proxy,
      ca: options.ca,
      http3,
      purpose: "relay",
      identity: node.identity
    }).pipe(
      Effect.mapError(({ message }) => new LinkUnavailable({ message })),
      Scope.extend(scope),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    const frames = new RelayLinkFrames(link, options.onFrame)
    const kind = PathKind.ofLink(link.carrier)
    current = { scope, ended, leg: { kind, send: (bytes) => sendEach(frames, bytes) } }
    void link.closed.then(() => Deferred.unsafeDone(ended, Effect.void))
    return kind
  }, Effect.uninterruptible)

  return {
    open,
    close,
    ended: Effect.suspend(() => (current === null ? Effect.void : Deferred.await(current.ended))),
    leg: () => current?.leg ?? null
  } satisfies PacketLink
})
