/** One suite for every carrier: what a link promises, and each trap of the libraries below it. */
import { Deferred, Effect, Exit, Queue, Stream } from "effect"
import { randomBytes } from "node:crypto"
import { describe, expect, it } from "vitest"
import { UNSEEN_CERT } from "../../src/protocol/relay/LinkHandshake.ts"
import type { Link } from "../../src/session/Link.ts"
import { MAX_QUEUED_BYTES, MessageQueue } from "../../src/session/MessageQueue.ts"
import * as Kit from "./RelayLinkKit.ts"

/** A server whose links are handed to the test and stay open until it ends. */
const serveToTest = Effect.fnUntraced(function*(setup: Kit.ServerSetup = {}) {
  const links = yield* Queue.unbounded<Link>()
  const server = yield* Kit.serve({ ...setup, onLink: (link) => Effect.zipRight(links.offer(link), Effect.never) })
  return { server, next: links.take }
})

const promise = <A>(run: () => Promise<A>) => Effect.promise(run)

describe.each(Kit.CARRIERS)("a relay link over %s", (carrier) => {
  it("carries bytes both ways, in order, far beyond its windows", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const { link, welcome } = yield* Kit.connect(server, carrier)
      expect(Buffer.from(welcome).toString()).toBe("{}")
      expect(link.carrier).toBe(carrier === "webtransport" ? "webtransport-h2" : carrier)
      expect(Buffer.from(link.serverCertSha256).equals(server.leaf.sha256)).toBe(true)
      const sent = randomBytes(8_000_000)
      const received = Kit.readBytes(link, sent.length)
      yield* promise(async () => {
        for (let at = 0; at < sent.length; at += 300_001) await link.write(sent.subarray(at, at + 300_001))
        expect((await received).equals(sent)).toBe(true)
      })
    })))

  it("keeps many links apart", () =>
    Kit.run(Effect.gen(function*() {
      const peers = new Set<string>()
      const server = yield* Kit.serve({
        onLink: (link, peer) => {
          peers.add(peer.nodeKey)
          return Kit.echo(link)
        }
      })
      yield* Effect.forEach(Array.from({ length: 20 }, (_, i) => i), (i) =>
        Effect.gen(function*() {
          const { link } = yield* Kit.connect(server, carrier)
          const mine = Buffer.alloc(10_000, i)
          yield* promise(() => link.write(mine))
          expect((yield* promise(() => Kit.readBytes(link, mine.length))).equals(mine)).toBe(true)
        }), { concurrency: 10 })
      expect(peers.size).toBe(20)
      expect(server.stats().links).toBe(20)
    })))

  it("slows a writer whose peer does not read, then resumes", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      const { link: reader } = yield* Kit.connect(server, carrier)
      const writer = yield* next
      const piece = new Uint8Array(64 * 1024)
      let written = 0
      const total = 64 * 1024 * 1024
      const writing = (async () => {
        for (; written < total; written += piece.length) await writer.write(piece)
      })()
      let stuckAt = -1
      for (let i = 0; i < 20 && stuckAt !== written; i++) {
        stuckAt = written
        yield* promise(() => Kit.sleep(600))
      }
      expect(written).toBe(stuckAt)
      expect(stuckAt).toBeLessThan(24 * 1024 * 1024) // the kernel's buffers and the windows
      expect(writer.bufferedBytes()).toBeLessThan(2 * 1024 * 1024)
      expect((yield* promise(() => Kit.readBytes(reader, total))).length).toBe(total)
      yield* promise(() => writing)
    })))

  it("cuts a peer that never reads, with bounded memory", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      const { link: reader } = yield* Kit.connect(server, carrier)
      const writer = yield* next
      const queue = new MessageQueue(writer)
      const before = process.memoryUsage()
      let offered = 0
      yield* promise(async () => {
        while (queue.offer(new Uint8Array(16 * 1024))) {
          offered += 16 * 1024
          if (offered > 100_000_000) throw new Error("never cut")
          if (offered % (128 * 1024) === 0) await new Promise((resolve) => setImmediate(resolve))
        }
      })
      const after = process.memoryUsage()
      expect(after.arrayBuffers + after.external - before.arrayBuffers - before.external).toBeLessThan(64 * 1024 * 1024)
      expect(offered).toBeGreaterThanOrEqual(MAX_QUEUED_BYTES - 64 * 1024)
      expect(yield* promise(() => writer.closed)).toMatchObject({ by: "here", code: 1008, reason: "too slow" })
      yield* promise(async () => {
        while (await reader.read() !== undefined);
        await reader.closed
      })
    })))

  it("sends the close code and reason once, also while queued", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      const { link: client } = yield* Kit.connect(server, carrier)
      const link = yield* next
      for (let i = 0; i < 50; i++) void link.write(new Uint8Array(16 * 1024)).catch(() => {})
      for (let i = 0; i < 100; i++) link.close("enough", 1008)
      const reading = (async () => {
        while (await client.read() !== undefined);
      })()
      expect(yield* promise(() => client.closed)).toEqual({ by: "peer", code: 1008, reason: "enough" })
      yield* promise(() => reading)
      const cpu = process.cpuUsage()
      yield* promise(() => Kit.sleep(500))
      const used = process.cpuUsage(cpu)
      expect(used.user + used.system).toBeLessThan(400_000) // no loop runs away
      expect(yield* promise(() => link.closed)).toMatchObject({ by: "here" })
    })))

  it("ends both ends when a socket dies", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      for (const side of ["client", "server"] as const) {
        const { link: client } = yield* Kit.connect(server, carrier)
        const link = yield* next
        if (side === "client") client.destroy("died")
        else link.destroy("died")
        const survivor = side === "client" ? link : client
        expect(yield* promise(() => survivor.closed)).toMatchObject({ by: "network" })
        expect(yield* promise(() => survivor.read())).toBeUndefined()
        yield* promise(() => expect(survivor.write(new Uint8Array(1))).rejects.toThrow())
      }
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => server.stats().links === 0))).toBe(true)
    })))

  it("closes the link with its scope, and can be interrupted", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest({ authenticate: () => Effect.succeed(new Uint8Array(0)) })
      yield* Effect.scoped(Kit.connect(server, carrier))
      const link = yield* next
      expect(yield* promise(() => link.closed)).toMatchObject({ by: "peer", code: 1000 })
      const silent = yield* Kit.serve({ authenticate: () => Effect.never })
      const exit = yield* Effect.exit(Effect.timeout(Effect.scoped(Kit.connect(silent, carrier)), 300))
      expect(Exit.isFailure(exit)).toBe(true)
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => silent.stats().connections === 0))).toBe(true)
    })))

  it("does not leave a client hanging when callbacks fail", () =>
    Kit.run(Effect.gen(function*() {
      const dying = yield* Kit.serve({ authenticate: () => Effect.die("boom") })
      const error = yield* Effect.flip(Kit.connect(dying, carrier))
      expect(error.reason).toBe("lost")
      const later = yield* Kit.serve({ onLink: () => Effect.die("boom") })
      const { link } = yield* Kit.connect(later, carrier)
      yield* promise(() => link.closed)
    })))

  it("keeps old links when the certificate is rotated", () =>
    Kit.run(Effect.gen(function*() {
      const authority = Kit.makeAuthority()
      const leaf = yield* Kit.issue(authority)
      const leaves = yield* Queue.unbounded<typeof leaf>()
      const server = yield* Kit.serve({ authority, leaf, changes: Stream.fromQueue(leaves) })
      const { link: old } = yield* Kit.connect(server, carrier)
      // Has seen the certificate, and signs it after the rotation.
      const early = yield* promise(() => Kit.openRaw(server, carrier))
      const renewed = yield* Kit.issue(authority)
      yield* leaves.offer(renewed)
      yield* promise(() => Kit.sleep(100))
      const { link: fresh } = yield* Kit.connect(server, carrier)
      expect(Buffer.from(fresh.serverCertSha256).equals(renewed.sha256)).toBe(true)
      expect(Buffer.from(old.serverCertSha256).equals(leaf.sha256)).toBe(true)
      for (const link of [old, fresh]) {
        yield* promise(() => link.write(Buffer.from("still here")))
        expect((yield* promise(() => Kit.readBytes(link, 10))).toString()).toBe("still here")
      }
      const { asClient } = yield* promise(() => import("../../src/session/ClientHandshake.ts"))
      expect(Buffer.from(early.link.serverCertSha256).equals(leaf.sha256)).toBe(true)
      yield* promise(() => asClient(early.link, { purpose: "signal", identity: Kit.makeIdentity() }))
    })))

  it("closes the rest with 1012 when the server stops", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      const { link } = yield* Kit.connect(server, carrier)
      yield* next
      const early = yield* Effect.scoped(
        Effect.zipRight(Kit.connect(server, carrier), Effect.zipRight(next, Effect.succeed(1)))
      )
      expect(early).toBe(1)
      const stopped = yield* Deferred.make<void>()
      const started = performance.now()
      yield* Effect.fork(Effect.zipRight(server.stop({ goAwayMs: 400 }), Deferred.succeed(stopped, undefined)))
      yield* promise(() => Kit.sleep(50))
      expect((yield* Effect.flip(Kit.connect(server, carrier))).reason).toBe("unreachable")
      expect(link.isClosed()).toBe(false)
      expect(yield* promise(() => link.closed)).toMatchObject({ by: "peer", code: 1012 })
      expect(performance.now() - started).toBeGreaterThan(350)
      yield* Deferred.await(stopped)
    })))

  it("answers 503 when it is full", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve({ limits: { links: 1 } })
      yield* Kit.connect(server, carrier)
      const error = yield* Effect.flip(Kit.connect(server, carrier))
      expect(error).toMatchObject({ reason: "carrier_refused", code: "503" })
      const crowded = yield* Kit.serve({ limits: { strangers: 2 } })
      const strangers = yield* promise(() =>
        Promise.all([Kit.openRaw(crowded, carrier), Kit.openRaw(crowded, carrier)])
      )
      expect(yield* Effect.flip(Kit.connect(crowded, carrier))).toMatchObject({
        reason: "carrier_refused",
        code: "503"
      })
      strangers[0].link.destroy("gone")
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => crowded.stats().connections === 1))).toBe(true)
      yield* Kit.connect(crowded, carrier)
    })))

  it("answers 404 to unknown paths, and refuses a wrong purpose", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      yield* promise(() => expect(Kit.openRaw(server, carrier, "/elsewhere")).rejects.toMatchObject({ status: 404 }))
      const { asClient } = yield* promise(() => import("../../src/session/ClientHandshake.ts"))
      const { link } = yield* promise(() => Kit.openRaw(server, carrier, "/relay"))
      yield* promise(() =>
        expect(asClient(link, { purpose: "signal", identity: Kit.makeIdentity() })).rejects.toThrow()
      )
      yield* Kit.connect(server, carrier, { purpose: "relay" })
    })))

  it("accepts a signature without the certificate only from browsers", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const { asClient } = yield* promise(() => import("../../src/session/ClientHandshake.ts"))
      const ask = Effect.fnUntraced(function*(purpose: "browser" | "signal", certSha256: Uint8Array) {
        const { link } = yield* promise(() => Kit.openRaw(server, carrier, `/${purpose}`))
        link.serverCertSha256 = certSha256
        return yield* promise(() =>
          asClient(link, { purpose, identity: Kit.makeIdentity() }).then(() => "welcome", ({ code }) => code)
        )
      })
      expect(yield* ask("browser", UNSEEN_CERT)).toBe("welcome")
      expect(yield* ask("signal", server.leaf.sha256)).toBe("welcome")
      expect(yield* ask("browser", server.leaf.sha256)).toBe("bad_signature")
      expect(yield* ask("signal", UNSEEN_CERT)).toBe("bad_signature")
    })))
})

describe("a relay link over webtransport", () => {
  const privates = (link: Link) =>
    link as unknown as {
      readonly session: {
        createBidirectionalStream(): Promise<{ writable: WritableStream }>
        createUnidirectionalStream(): Promise<WritableStream>
      }
      readonly writer: { abort(reason: unknown): Promise<void> }
      readonly native: {
        readonly stream: { write(bytes: Uint8Array): boolean; removeAllListeners(event: string): void }
      }
    }

  it("sees that its stream was reset", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      const { link: client } = yield* Kit.connect(server, "webtransport")
      const link = yield* next
      void privates(client).writer.abort({ code: 9 }).catch(() => {})
      expect(yield* promise(() => Promise.race([link.closed, Kit.sleep(Kit.HANG_MS)]))).toMatchObject({ by: "network" })
      yield* promise(() => client.closed)
    })))

  it("cuts a client that opens a second stream", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      const WT_STREAM = [0x99, 0x0b, 0x4d, 0x3b] // 4-byte varint of 0x190b4d3b
      for (const id of [5, 3, 4, 2]) { // two- and one-way, as the client numbers them and as the server does
        const { link: client } = yield* Kit.connect(server, "webtransport")
        const link = yield* next
        privates(client).native.stream.write(Buffer.from([...WT_STREAM, 1, id]))
        expect(yield* promise(() => Promise.race([link.closed, Kit.sleep(Kit.HANG_MS)]))).toMatchObject({
          by: "network"
        })
      }
    })))

  it("keeps its memory if a client never reads its windows", () =>
    Kit.run(Effect.gen(function*() {
      const { next, server } = yield* serveToTest()
      const { link: client } = yield* Kit.connect(server, "webtransport")
      const link = yield* next
      const { stream } = privates(client).native
      stream.removeAllListeners("readable")
      stream.write(Buffer.from([0x99, 0x0b, 0x4d, 0x3d, 8, 0xff, 0, 0, 0, 0, 0, 0, 0])) // WT_MAX_DATA 2^62 - 2^56
      stream.write(Buffer.from([0x99, 0x0b, 0x4d, 0x3e, 9, 1, 0xff, 0, 0, 0, 0, 0, 0, 0])) // WT_MAX_STREAM_DATA
      yield* promise(() => Kit.sleep(100))
      let written = 0
      const writing = (async () => {
        for (; written < 200_000_000; written += 65_536) await link.write(new Uint8Array(65_536))
      })()
      yield* promise(() => Promise.race([writing, Kit.sleep(1500)]))
      expect(written).toBeLessThan(24 * 1024 * 1024)
      expect(link.bufferedBytes()).toBeLessThan(2 * 1024 * 1024)
      link.destroy("enough")
      yield* promise(() => writing.catch(() => {}))
    })))

  it("survives malformed capsules from strangers", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* Kit.serve()
      const capsules = [
        randomBytes(3000),
        Buffer.from([0x99, 0x0b, 0x4d, 0x3b, 0]), // a stream without its id
        Buffer.from([0x99, 0x0b, 0x4d, 0x39, 2, 0, 0]), // reset of stream 0
        Buffer.from([0x99, 0x0b, 0x4d, 0x3e, 0]), // a window without its size
        Buffer.from([0x68, 0x43, 0]), // a close without its code
        Buffer.concat([Buffer.from([0x00, 0x80, 0x0f, 0x42, 0x40]), Buffer.alloc(100_000)]) // a datagram of 1 MB
      ]
      for (const capsule of capsules) {
        const { link } = yield* promise(() => Kit.openRaw(server, "webtransport"))
        privates(link).native.stream.write(capsule)
        yield* promise(() => Kit.sleep(30))
        link.destroy("done")
      }
      const { link } = yield* Kit.connect(server, "webtransport")
      yield* promise(() => link.write(Buffer.from("hello")))
      expect((yield* promise(() => Kit.readBytes(link, 5))).toString()).toBe("hello")
    })))
})
