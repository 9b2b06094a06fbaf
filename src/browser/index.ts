/**
 * Sallyport in a page, as the module `sallyport/browser`. It needs a secure context, IndexedDB and
 * Ed25519 in WebCrypto.
 */
import { Cause, Effect, Exit, Scope } from "effect"
import * as HostName from "../protocol/bytes/HostName.ts"
import type { Flow } from "./Flow.ts"
import * as Http from "./Http.ts"
import * as Relay from "./PageRelay.ts"
import type { OpenFailed as Failure, Peer } from "./PageSessions.ts"

export type { Flow } from "./Flow.ts"
export type { Peer } from "./PageSessions.ts"

/** A range of ports. Both ends are included. */
export interface PortRange {
  readonly from: number
  readonly to: number
}

/** A private target that this client may reach. */
export interface Resource {
  readonly name: string
  /** A host name, an IP address, a name pattern (`*.example.com`) or a CIDR block. */
  readonly address: string
  /** Permitted TCP ports. */
  readonly tcp: ReadonlyArray<PortRange>
  /** Permitted UDP ports. A page opens TCP flows only. */
  readonly udp: ReadonlyArray<PortRange>
}

/** Error when there is no connection to the relay. `message` says what to do. */
export interface ConnectFailed extends Error {
  readonly _tag: "ConnectFailed"
  /**
   * Kind of failure:
   * - `bad_token`: the token is invalid, or it cannot be used in a browser.
   * - `not_enrolled`: no token was given, and this browser has no identity yet.
   * - `unsupported`: this browser lacks something that is needed.
   * - `unreachable`: no connection. A browser does not say why.
   * - `refused`: the relay refused the client; `code` says why.
   * - `broken`: the relay's answer makes no sense.
   */
  readonly reason: Relay.ConnectFailed["reason"]
  /** Error code of the relay or of the token's check. Empty if there is none. */
  readonly code: string
}

/** Error when a flow could not be opened. `message` says what to do. */
export interface OpenFailed extends Error {
  readonly _tag: "OpenFailed"
  /**
   * Reason why the flow was not opened. `refused`, `unreachable` and `timed_out` are the resource's
   * answer.
   */
  readonly code: Failure["code"]
}

/** Options of {@link connect}. */
export interface Options {
  /**
   * Set to `false` to use WebSocket only. Otherwise WebTransport is tried first; if the relay has
   * no HTTP/3, the browser logs a console error and the client falls back to WebSocket.
   */
  readonly webTransport?: boolean
}

/** A connection to a relay, with the sessions to connectors that were dialled through it. */
export interface Connection {
  /** Name of this client, as the administrator chose it. */
  readonly name: string
  /** Public key of this browser's identity at this relay: Ed25519, base64url. */
  readonly nodeKey: string
  /** Address of the relay, as `host:port`. An IPv6 address is in brackets. */
  readonly relay: string
  /**
   * Carrier of the link to the relay. It is WebTransport if this browser reaches the relay over
   * HTTP/3, and WebSocket otherwise.
   */
  readonly carrier: "webtransport" | "websocket"
  /** Lists the resources that this client may reach now. Rejects with {@link ConnectFailed}. */
  readonly resources: () => Promise<ReadonlyArray<Resource>>
  /**
   * Opens a flow to a TCP port of a resource. `host` is the resource's name, or an address that the
   * resource covers. Resolves when the resource has accepted the connection. Rejects with
   * {@link OpenFailed}.
   */
  readonly openTcp: (host: string, port: number) => Promise<Flow>
  /**
   * Works like the page's own `fetch`, over a flow, for `http:` URLs only. Rejects as `fetch` does,
   * or with {@link OpenFailed}. Does not follow redirects.
   */
  readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>
  /** Lists the sessions with connectors, with the path and the traffic of each. */
  readonly peers: () => Promise<ReadonlyArray<Peer>>
  /** Ends all sessions and the link to the relay. */
  readonly close: () => Promise<void>
  /** Resolves with the reason when the link to the relay has ended. Never rejects. */
  readonly closed: Promise<string>
}

/**
 * Connects this page to a relay. With an enrolment token, the browser becomes that token's client;
 * its key is made here and never leaves the browser. Later calls need no token: they connect to the
 * relay that was used last. Each identity has one link at a time, so a newer page ends the link of
 * an older one. Rejects with {@link ConnectFailed}.
 */
export const connect = async (token?: string, { webTransport = true }: Options = {}): Promise<Connection> => {
  const scope = Effect.runSync(Scope.make())
  const close = () => Effect.runPromise(Scope.close(scope, Exit.void))
  try {
    const relay = await run(Scope.extend(Relay.connect(token, webTransport), scope))
    const closed = Effect.runPromise(relay.closed).then(async ({ reason }) => {
      await close()
      return reason
    })
    return {
      name: relay.name,
      nodeKey: relay.nodeKey,
      relay: relay.relay,
      carrier: relay.carrier,
      resources: async () =>
        [...await run(relay.resources)].map(({ address, name, shown, tcp, udp }) => ({
          name: HostName.shown(name, shown),
          address,
          tcp,
          udp
        })),
      openTcp: (host, port) => run(relay.sessions.openTcp(host, port)),
      fetch: async (input, init) => {
        const request = new Request(input, init)
        const { host, port } = Http.targetOf(new URL(request.url))
        return await Http.fetchOver(await run(relay.sessions.openTcp(host, port), request.signal), request)
      },
      peers: () => run(relay.sessions.peers),
      close,
      closed
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** Runs an effect as a promise that rejects with the effect's own error, not with a wrapper. */
const run = async <A, E>(effect: Effect.Effect<A, E>, signal?: AbortSignal): Promise<A> => {
  const exit = await Effect.runPromiseExit(effect, signal === undefined ? {} : { signal })
  if (Exit.isSuccess(exit)) return exit.value
  signal?.throwIfAborted()
  throw Cause.squash(exit.cause)
}
