/** Servers, clients and certificates for the relay link's tests, all in this process and on loopback. */
import { Effect, PubSub, type Scope, Stream } from "effect"
import { generateKeyPairSync, type KeyObject } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { TLSSocket } from "node:tls"
import { fromBytes, type NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import * as Pki from "../../src/services/identity/Pki.ts"
import type { CarrierLink, Link } from "../../src/session/Link.ts"
import * as TlsDial from "../../src/transport/carrier/TlsDial.ts"
import * as WebSocketCarrier from "../../src/transport/carrier/WebSocketCarrier.ts"
import * as WebTransportCarrier from "../../src/transport/carrier/WebTransportCarrier.ts"
import * as Http3Client from "../../src/transport/http3/Http3Client.ts"
import * as Http3Front from "../../src/transport/http3/Http3Front.ts"
import type { Limits as Http3Limits } from "../../src/transport/http3/Http3Listener.ts"
import * as LinkClient from "../../src/transport/link/LinkClient.ts"
import type { Limits } from "../../src/transport/link/LinkPort.ts"
import * as LinkServer from "../../src/transport/link/LinkServer.ts"
import { freePort } from "../support/Ports.ts"

/** `webtransport` is over HTTP/2. */
export type CarrierName = "websocket" | "webtransport" | "webtransport-h3"
export const CARRIERS: ReadonlyArray<CarrierName> = ["websocket", "webtransport", "webtransport-h3"]

export interface Authority {
  readonly privateKey: KeyObject
  readonly pin: NodeKey
}
export const makeAuthority = (): Authority => {
  const { privateKey } = generateKeyPairSync("ed25519")
  return { privateKey, pin: fromBytes(Crypto.rawPublicKey(privateKey)!) }
}
export const issue = (authority: Authority, nowMs = Date.now()) =>
  Pki.issueLeaf({ issuer: authority.privateKey, host: "localhost", nowMs })

export const makeIdentity = () => {
  const { pin, privateKey } = makeAuthority()
  return { key: pin, sign: (message: Uint8Array) => Crypto.sign(privateKey, message) }
}

/** Generous: all of a test's connections come from one address. */
export const LIMITS: Partial<Limits> = { acceptsPerSecond: 100_000, acceptBurst: 100_000 }

export const echo = (link: Link) =>
  Effect.promise(async () => {
    for await (const bytes of link.incoming) await link.write(bytes).catch(() => {})
  })

export interface ServerSetup {
  readonly authority?: Authority
  readonly leaf?: Pki.Leaf
  readonly changes?: Stream.Stream<Pki.Leaf>
  readonly limits?: Partial<Limits>
  readonly http3?: Partial<Http3Limits>
  readonly onLink?: (link: Link, peer: LinkServer.Peer) => Effect.Effect<void>
  readonly authenticate?: (peer: LinkServer.Peer) => Effect.Effect<Uint8Array, LinkServer.LinkRefused>
  readonly pages?: LinkServer.Options<never>["pages"]
  readonly fronts?: LinkServer.Options<never>["fronts"]
  readonly proxiedHash?: Uint8Array
}

export const serve = Effect.fnUntraced(function*(setup: ServerSetup = {}) {
  const authority = setup.authority ?? makeAuthority()
  const leaf = setup.leaf ?? (yield* issue(authority))
  const dir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "sallyport-link-"))),
    (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
  )
  const gate = join(dir, "http3.sock")
  const leaves = yield* PubSub.unbounded<Pki.Leaf>()
  const server = yield* LinkServer.make({
    host: "127.0.0.1",
    port: yield* Effect.promise(freePort), // HTTP/3 needs the same one
    gate,
    tls: leaf,
    tlsChanges: Stream.fromPubSub(leaves),
    authenticate: setup.authenticate ?? (() => Effect.succeed(new TextEncoder().encode("{}"))),
    onLink: setup.onLink ?? echo,
    limits: { ...LIMITS, ...setup.limits },
    fronts: setup.fronts,
    proxiedHash: setup.proxiedHash,
    ...(setup.pages !== undefined && { pages: setup.pages })
  })
  const front = yield* Http3Front.make({
    host: "127.0.0.1",
    port: server.port,
    certificate: leaf,
    changes: Stream.fromPubSub(leaves),
    gate,
    limits: { acceptsPerSecond: 100_000, acceptBurst: 100_000, ...setup.http3 },
    onError: (cause) => {
      throw cause
    }
  })
  if (setup.changes !== undefined) {
    yield* Effect.forkScoped(Effect.delay(Stream.runForEach(setup.changes, (next) => leaves.publish(next)), 20))
  }
  return { ...server, authority, leaf, http3: front.listener }
})
export type Served = Effect.Effect.Success<ReturnType<typeof serve>>

export const connect = (
  server: Pick<Served, "port" | "authority">,
  carrier: CarrierName,
  more: Partial<LinkClient.Options> = {}
) =>
  LinkClient.connect({
    host: "127.0.0.1",
    port: server.port,
    trust: { _tag: "Pin", key: server.authority.pin },
    carrier: carrier === "websocket" ? "websocket" : "webtransport",
    http3: carrier === "webtransport-h3",
    purpose: "signal",
    identity: makeIdentity(),
    ...more
  })

export const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Effect.scoped(effect))

/** Reads until there are `length` bytes. */
export const readBytes = async (link: Link, length: number): Promise<Buffer> => {
  const parts: Array<Uint8Array> = []
  for (let have = 0; have < length;) {
    const bytes = await link.read()
    if (bytes === undefined) throw new Error(`the link ended after ${have} of ${length} bytes`)
    parts.push(bytes)
    have += bytes.length
  }
  const all = Buffer.concat(parts)
  link.unread(all.subarray(length))
  return all.subarray(0, length)
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export { HANG_MS } from "../support/Hang.ts"

/** Polls: true as soon as `check` holds, false after `ms`. */
export const within = async (ms: number, check: () => boolean): Promise<boolean> => {
  const end = performance.now() + ms
  while (performance.now() < end) {
    if (check()) return true
    await sleep(10)
  }
  return check()
}

/** A link on which no handshake was said: for peers that misbehave. The certificate is checked against `authority`. */
export const openRaw = async (
  server: Pick<Served, "port" | "authority">,
  carrier: CarrierName,
  path = "/signal"
): Promise<{ readonly link: CarrierLink; readonly socket: TLSSocket | null }> => {
  const { port } = server
  const at = { host: "127.0.0.1", port, trust: { _tag: "Pin", key: server.authority.pin } } as const
  const { signal } = new AbortController()
  if (carrier === "webtransport-h3") {
    return { link: (await Http3Client.open({ ...at, path }, signal)).link, socket: null }
  }
  const alpn = carrier === "webtransport" ? "h2" : "http/1.1"
  const { certSha256, socket } = await TlsDial.dial({ ...at, alpn }, signal)
  const open = carrier === "webtransport" ? WebTransportCarrier.open : WebSocketCarrier.open
  return { link: await open(socket, `127.0.0.1:${port}`, path, certSha256), socket }
}
