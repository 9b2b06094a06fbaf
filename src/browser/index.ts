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
  /** First port, from 1 to 65535. */
  readonly from: number
  /** Last port, from 1 to 65535. It is not below `from`. */
  readonly to: number
}

/** A private target that this client may reach. */
export interface Resource {
  /** Name of the resource, as its administrator wrote it. */
  readonly name: string
  /** A host name, an IP address, a name pattern (`*.example.com`) or a CIDR block. */
  readonly address: string
  /** Permitted TCP ports. */
  readonly tcp: ReadonlyArray<PortRange>
  /** Permitted UDP ports. A page opens TCP flows only. */
  readonly udp: ReadonlyArray<PortRange>
}

/** Error when there is no connection to the relay. `message` says what happened and what to do. */
export interface ConnectFailed extends Error {
  readonly _tag: "ConnectFailed"
  /**
   * Kind of failure:
   * - `bad_token`: the token is invalid, or it cannot be used in a browser.
   * - `not_enrolled`: no token was given, and this browser has no identity yet.
   * - `unsupported`: this browser lacks something that is needed.
   * - `unreachable`: the relay could not be reached. A browser does not say why.
   * - `refused`: the relay refused the client; `code` says why.
   * - `broken`: the relay's answer is invalid, or WebCrypto failed.
   */
  readonly reason: Relay.ConnectFailed["reason"]
  /** Error code of the relay or of the token's check. Empty if there is none. */
  readonly code: string
}

/** Error when a flow could not be opened. `message` says what happened and what to do. */
export interface OpenFailed extends Error {
  readonly _tag: "OpenFailed"
  /**
   * Reason why the flow was not opened:
   * - `refused`, `unreachable`, `timed_out`: the resource's answer.
   * - `no_connector`, `connector_declined`, `overloaded`: the relay could not arrange a session.
   * - `no_connection`: WebRTC found no path to the connector.
   * - `relay_gone`: the link to the relay has ended; call {@link connect} again.
   * - Any other code is the reason why the relay or the connector does not permit the flow.
   */
  readonly code: Failure["code"]
}

/** Options of {@link connect}. */
export interface Options {
  /**
   * Set to `false` to use only WebSocket for the link to the relay. By default the client tries
   * WebTransport first and falls back to WebSocket. If the relay has no HTTP/3, the browser then
   * logs an error to its console.
   */
  readonly webTransport?: boolean
}

/** A connection to a relay, and the sessions with connectors that were arranged through it. */
export interface Connection {
  /** Name of this client, as the administrator chose it. */
  readonly name: string
  /** Public key of this browser's identity at this relay: Ed25519, base64url. */
  readonly nodeKey: string
  /** Address of the relay, as `host:port`. An IPv6 address is in brackets. */
  readonly relay: string
  /**
   * Transport of the link to the relay. It is `webtransport` if this browser reaches the relay over
   * HTTP/3, and `websocket` otherwise.
   */
  readonly carrier: "webtransport" | "websocket"
  /** Lists the resources that this client may reach now. Rejects with {@link ConnectFailed}. */
  readonly resources: () => Promise<ReadonlyArray<Resource>>
  /**
   * Opens a flow to a TCP port of a resource. `host` is the resource's name, or an address that the
   * resource covers; `port` is from 1 to 65535. Resolves when the resource has accepted the
   * connection. Rejects with {@link OpenFailed}.
   */
  readonly openTcp: (host: string, port: number) => Promise<Flow>
  /**
   * Fetches an `http:` URL of a resource over a flow, as the page's own `fetch` does. It does not
   * follow redirects. Rejects as `fetch` does, or with {@link OpenFailed}.
   */
  readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>
  /** Lists the sessions with connectors. Each shows its path and traffic. */
  readonly peers: () => Promise<ReadonlyArray<Peer>>
  /** Ends all sessions and the link to the relay. Resolves when they have ended. */
  readonly close: () => Promise<void>
  /**
   * Resolves when the link to the relay has ended, with the reason in words for people. Never
   * rejects.
   */
  readonly closed: Promise<string>
}

/**
 * Connects this page to a relay. With an enrolment token, the browser becomes the client that the
 * token names. It makes the client's key, which never leaves the browser. Later calls need no
 * token: they connect to the relay that was used last. Each identity has one link at a time, so a
 * newer page ends the link of an older one. Rejects with {@link ConnectFailed}.
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
