/**
 * The relay link that carries packets where UDP does not reach. It is opened, used and closed on
 * the data thread.
 */
import { Deferred, Duration, Effect, ExecutionStrategy, Exit, Scope } from "effect"
import * as PathKind from "../../protocol/path/PathKind.ts"
import type { NodeState } from "../../services/identity/NodeState.ts"
import * as RelayAddresses from "../../services/network/RelayAddresses.ts"
import type { Link } from "../../session/Link.ts"
import * as LinkClient from "../../transport/link/LinkClient.ts"
import { sendEach } from "../../transport/link/LinkToPort.ts"
import { RelayLinkFrames } from "../../transport/link/RelayLinkFrames.ts"
import type { Leg } from "../../transport/plane/PacketRouter.ts"
import type { LegKind } from "../relay/RelayRpcs.ts"
import { LinkUnavailable } from "./StreamMuxRpcs.ts"

/** The packet link of this node. At most one is open. */
export interface PacketLink {
  /**
   * Closes the link that is open, if any, and opens a new one, or takes the one that
   * `replaceByHttp3` has opened. `http3` is whether the relay accepts links over HTTP/3.
   */
  readonly open: (http3: boolean) => Effect.Effect<LegKind, LinkUnavailable>
  /**
   * Opens a link over HTTP/3 for the next `open`, then ends the link in use. If HTTP/3 does not
   * work, the link in use stays.
   */
  readonly replaceByHttp3: Effect.Effect<void, LinkUnavailable>
  readonly close: Effect.Effect<void>
  /** Waits until the open link ends. Returns at once if none is open. */
  readonly ended: Effect.Effect<void>
  /** Leg by which the router sends. `null` if no link is open. */
  readonly leg: () => Exclude<Leg, { readonly kind: "relay-udp" }> | null
}

/** How long a link that `replaceByHttp3` has opened waits for the next `open`. */
const SPARE_LIFE = Duration.seconds(10)

interface Connected {
  readonly scope: Scope.CloseableScope
  readonly link: Link
  readonly ended: Deferred.Deferred<void>
}
interface Open extends Connected {
  readonly leg: Exclude<Leg, { readonly kind: "relay-udp" }>
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
  const opener = yield* LinkClient.LinkOpener
  const parent = yield* Effect.scope
  let current: Open | null = null
  /**
   * Link over HTTP/3 that the next `open` uses. It is not read before that, because the relay's
   * first message on a link is for the binding that begins then.
   */
  let spare: Connected | null = null

  const closeCurrent = Effect.suspend(() => {
    const open = current
    current = null
    return open === null ? Effect.void : Scope.close(open.scope, Exit.void)
  })
  const closeSpare = Effect.suspend(() => {
    const open = spare
    spare = null
    return open === null ? Effect.void : Scope.close(open.scope, Exit.void)
  })

  const connect = Effect.fnUntraced(function*(http3: boolean, http3Only: boolean) {
    const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
    const ended = yield* Deferred.make<void>()
    const { link } = yield* opener.connect({
      host: node.relay.host,
      lastAddresses: yield* RelayAddresses.known(options.stateDir, node.relay.host),
      port: node.relay.httpsPort,
      trust: node.relay.tls,
      carrier: options.carrier,
      proxy: options.proxy,
      ca: options.ca,
      http3,
      http3Only,
      purpose: "relay",
      identity: node.identity
    }).pipe(
      Effect.mapError(({ message }) => new LinkUnavailable({ message })),
      Scope.extend(scope),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    const connected: Connected = { scope, link, ended }
    const onEnd = () => {
      if (spare === connected) spare = null
      Deferred.unsafeDone(ended, Effect.void)
    }
    void link.closed.then(onEnd)
    return connected
  }, Effect.uninterruptible)

  const open = Effect.fnUntraced(function*(http3: boolean) {
    yield* closeCurrent
    const connected = spare ?? (yield* connect(http3, false))
    spare = null
    const frames = new RelayLinkFrames(connected.link, options.onFrame)
    const kind = PathKind.ofLink(connected.link.carrier)
    current = { ...connected, leg: { kind, send: (bytes) => sendEach(frames, bytes) } }
    return kind
  }, Effect.uninterruptible)

  const replaceByHttp3 = Effect.gen(function*() {
    const replaced = current
    if (replaced === null) return yield* new LinkUnavailable({ message: "there is no link to replace" })
    const opened = yield* connect(true, true)
    // The link in use may have been closed meanwhile, because UDP works.
    if (current !== replaced || spare !== null) return yield* Scope.close(opened.scope, Exit.void)
    spare = opened
    const giveUp = Effect.suspend(() => (spare === opened ? closeSpare : Effect.void))
    yield* Effect.forkIn(Effect.interruptible(Effect.delay(giveUp, SPARE_LIFE)), parent)
    yield* closeCurrent
  }).pipe(Effect.uninterruptible)

  return {
    open,
    replaceByHttp3,
    close: Effect.zipRight(closeSpare, closeCurrent),
    ended: Effect.suspend(() => (current === null ? Effect.void : Deferred.await(current.ended))),
    leg: () => current?.leg ?? null
  } satisfies PacketLink
})
