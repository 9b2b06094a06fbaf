/** What stands before a relay's port, and what is believed of what it says. */
import { Effect } from "effect"
import { once } from "node:events"
import * as net from "node:net"
import { describe, expect, it } from "vitest"
import { proxiedName } from "../../src/protocol/relay/LinkHandshake.ts"
import * as Crypto from "../../src/services/host/Crypto.ts"
import { asClient } from "../../src/session/ClientHandshake.ts"
import type * as LinkServer from "../../src/transport/link/LinkServer.ts"
import * as Kit from "./RelayLinkKit.ts"

const promise = <A>(run: () => Promise<A>) => Effect.promise(run)
const HERE = ["127.0.0.1"]
const NONE: ReadonlyArray<string> = []
const header = (from: string) => `PROXY TCP4 ${from} 192.0.2.1 4711 443\r\n`

/** A balancer before `port` that says `first` on each connection, cut into pieces of one byte where `slow`. */
const balancer = (port: number, first: () => string, slow = false) =>
  Effect.map(
    Effect.acquireRelease(
      promise(async () => {
        const sockets = new Set<net.Socket>()
        const server = net.createServer((client) => {
          const up = net.connect(port, "127.0.0.1")
          for (const socket of [client, up]) {
            sockets.add(socket)
            socket.on("error", () => {}).on("close", () => {
              client.destroy()
              up.destroy()
            })
          }
          up.setNoDelay(true)
          const pieces = slow ? Array.from(first()) : [first()]
          const next = () => {
            const piece = pieces.shift()
            if (piece !== undefined) return void up.write(piece, () => setImmediate(next))
            client.pipe(up)
            up.pipe(client)
          }
          next()
        }).listen(0, "127.0.0.1")
        await once(server, "listening")
        return { server, sockets }
      }),
      ({ server, sockets }) =>
        Effect.sync(() => {
          server.close()
          for (const socket of sockets) socket.destroy()
        })
    ),
    ({ server }) => (server.address() as net.AddressInfo).port
  )

const remotes = () => {
  const seen: Array<string> = []
  const authenticate = ({ remote }: LinkServer.Peer) =>
    Effect.sync(() => {
      seen.push(remote)
      return new Uint8Array(0)
    })
  return { authenticate, seen }
}

describe("a balancer with the PROXY protocol", () => {
  for (const carrier of ["websocket", "webtransport"] as const) {
    it(`says where a client is, over ${carrier}`, () =>
      Kit.run(Effect.gen(function*() {
        const { authenticate, seen } = remotes()
        const server = yield* Kit.serve({ authenticate, fronts: { proxyProtocol: HERE, reverseProxies: NONE } })
        for (const slow of [false, true]) {
          const port = yield* balancer(server.port, () => header("203.0.113.7"), slow)
          const { link } = yield* Kit.connect({ ...server, port }, carrier)
          yield* promise(() => link.write(new TextEncoder().encode("through")))
          expect((yield* promise(() => Kit.readBytes(link, 7))).toString()).toBe("through")
        }
        expect(seen).toStrictEqual(["203.0.113.7:4711", "203.0.113.7:4711"])
      })))
  }

  it("has the connections of each client counted for that client", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({
        fronts: { proxyProtocol: HERE, reverseProxies: NONE },
        limits: { acceptsPerSecond: 0.001, acceptBurst: 1 }
      })
      let from = "203.0.113.7"
      const port = yield* balancer(server.port, () => header(from))
      yield* Kit.connect({ ...server, port }, "websocket")
      from = "198.51.100.7"
      yield* Kit.connect({ ...server, port }, "websocket")
      yield* Effect.flip(Kit.connect({ ...server, port }, "websocket"))
      expect(server.stats().refused.rate).toBe(1)
    })))

  it("requires a PROXY header from listed addresses only", () =>
    Kit.run(Effect.gen(function*() {
      const listed = yield* Kit.serve({ fronts: { proxyProtocol: HERE, reverseProxies: NONE } })
      yield* Effect.flip(Kit.connect(listed, "websocket"))
      expect(listed.stats().refused.header).toBe(1)
      const { authenticate, seen } = remotes()
      const elsewhere = yield* Kit.serve({
        authenticate,
        fronts: { proxyProtocol: ["192.0.2.0/24"], reverseProxies: NONE }
      })
      const port = yield* balancer(elsewhere.port, () => header("203.0.113.7"))
      expect(yield* Effect.flip(Kit.connect({ ...elsewhere, port }, "websocket"))).toMatchObject({
        reason: "tls_failed"
      })
      yield* Kit.connect(elsewhere, "websocket")
      expect(seen.every((remote) => remote.startsWith("127.0.0.1:"))).toBe(true)
    })))
})

describe("a reverse proxy that ends TLS", () => {
  const NAME = "relay.example.com"
  const hash = (name: string) => Crypto.sha256(proxiedName(name))

  /** Says the handshake, with the name signed in place of the certificate. */
  const signed = (server: Kit.Served, name: string) =>
    Effect.tryPromise({
      try: async () => {
        const { link } = await Kit.openRaw(server, "websocket")
        link.serverCertSha256 = hash(name)
        await asClient(link, { purpose: "signal", identity: Kit.makeIdentity() }).finally(() => link.destroy("over"))
      },
      catch: (error) => error as Error
    })

  it("accepts who signed the relay's name, in any spelling", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({
        proxiedHash: hash(NAME),
        fronts: { proxyProtocol: NONE, reverseProxies: HERE }
      })
      yield* signed(server, NAME)
      yield* signed(server, "Relay.Example.COM.")
      expect(yield* Effect.flip(signed(server, "other.example.com"))).toMatchObject({ code: "bad_signature" })
      // The relay's own certificate is as good.
      yield* Kit.connect(server, "websocket")
    })))

  it("has to be listed for that", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({
        proxiedHash: hash(NAME),
        fronts: { proxyProtocol: NONE, reverseProxies: ["192.0.2.1"] }
      })
      expect(yield* Effect.flip(signed(server, NAME))).toMatchObject({ code: "bad_signature" })
    })))

  const ask = (port: number, more = "") =>
    promise(() =>
      new Promise<string>((resolve) => {
        let said = ""
        const socket = net.connect(port, "127.0.0.1", () =>
          socket.write(`GET /healthz HTTP/1.1\r\nhost: x\r\n${more}\r\n`))
        socket.on("data", (bytes) =>
          said += String(bytes)).on("error", () => {}).on("close", () =>
            resolve(said))
      })
    )

  it("speaks plain HTTP, which nobody else may", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ fronts: { proxyProtocol: NONE, reverseProxies: HERE } })
      expect(yield* ask(server.port)).toMatch(/^HTTP\/1.1 200 OK/)
      const other = yield* Kit.serve({ fronts: { proxyProtocol: NONE, reverseProxies: ["192.0.2.1"] } })
      expect(yield* ask(other.port)).toBe("")
    })))

  it("has requests counted for the client that it names last", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({
        fronts: { proxyProtocol: NONE, reverseProxies: HERE },
        limits: { acceptsPerSecond: 0.001, acceptBurst: 1 }
      })
      const from = (list: string) => ask(server.port, `x-forwarded-for: ${list}\r\n`)
      expect(yield* from("198.51.100.1, 203.0.113.7")).toContain("200 OK")
      expect(yield* from("198.51.100.1, 192.0.2.7:99")).toContain("200 OK")
      expect(yield* from("198.51.100.2, 203.0.113.7")).toBe("")
      expect(server.stats().refused.rate).toBe(1)
    })))
})
