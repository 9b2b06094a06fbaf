/** Sallyport in a page: `sallyport/browser`. Needs a secure context, IndexedDB and Ed25519 in WebCrypto. */
import { Cause, Effect, Exit, Scope } from "effect"
import type { Flow } from "./Flow.ts"
import * as Http from "./Http.ts"
import * as Relay from "./Relay.ts"
import type { OpenFailed as Failure, Peer } from "./Sessions.ts"

export type { Flow } from "./Flow.ts"
export type { Peer } from "./Sessions.ts"

/** Both ends are included. */
export interface PortRange {
  readonly from: number
  readonly to: number
}

export interface Resource {
  readonly name: string
  /** A host name, an address, a pattern or a CIDR. */
  readonly address: string
  readonly tcp: ReadonlyArray<PortRange>
  readonly udp: ReadonlyArray<PortRange>
}

/** Why there is no connection; `message` says what to do. */
export interface ConnectFailed extends Error {
  readonly _tag: "ConnectFailed"
  readonly reason: Relay.ConnectFailed["reason"]
  /** A word of the relay's or of the token's check, or empty. */
  readonly code: string
}

/** Why there is no flow; `message` says what to do. */
export interface OpenFailed extends Error {
  readonly _tag: "OpenFailed"
  /** The resource's answer, or why it was not asked. */
  readonly code: Failure["code"]
}

export interface Options {
  /** False: WebSocket only. A browser complains on its console of a relay without HTTP/3; the connection is had all the same. */
  readonly webTransport?: boolean
}

export interface Connection {
  /** As the administrator named this client. */
  readonly name: string
  /** This browser's identity at this relay: an Ed25519 public key, base64url. */
  readonly nodeKey: string
  /** `host:port`. */
  readonly relay: string
  /** What the link to the relay travels by: WebTransport where the relay has HTTP/3 and this browser reaches it so. */
  readonly carrier: "webtransport" | "websocket"
  /** What it may reach now. Rejects with `ConnectFailed`. */
  readonly resources: () => Promise<ReadonlyArray<Resource>>
  /**
   * A flow to a TCP port of a resource, by its name or an address that it covers; the resource has accepted by then. Rejects with
   * `OpenFailed`.
   */
  readonly openTcp: (host: string, port: number) => Promise<Flow>
  /** The page's own `fetch`, over a flow: for `http:` URLs. Rejects as that does, and with `OpenFailed`. Follows no redirects. */
  readonly fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>
  /** The connectors that this page has sessions with, and how bytes get there. */
  readonly peers: () => Promise<ReadonlyArray<Peer>>
  readonly close: () => Promise<void>
  /** Says why the link to the relay has ended. Never rejects. */
  readonly closed: Promise<string>
}

/**
 * With an enrolment token the browser becomes that client; its key is made here and never leaves. Later calls need no token: they
 * go to the relay that was used last. One link for each identity: a newer page ends an older one's. Rejects with `ConnectFailed`.
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
        [...await run(relay.resources)].map(({ address, name, tcp, udp }) => ({ name, address, tcp, udp })),
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

/** With the error itself, not wrapped. */
const run = async <A, E>(effect: Effect.Effect<A, E>, signal?: AbortSignal): Promise<A> => {
  const exit = await Effect.runPromiseExit(effect, signal === undefined ? {} : { signal })
  if (Exit.isSuccess(exit)) return exit.value
  signal?.throwIfAborted()
  throw Cause.squash(exit.cause)
}
