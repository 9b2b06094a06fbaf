/** Calls over relay links, over each carrier. */
import { Rpc, RpcClient, RpcGroup, RpcServer } from "@effect/rpc"
import { Effect, Exit, Fiber, Layer, Queue, Schema, Stream, Tracer } from "effect"
import { randomBytes } from "node:crypto"
import { describe, expect, it } from "vitest"
import { encode as framed } from "../../src/protocol/bytes/LengthPrefix.ts"
import type { Link } from "../../src/session/Link.ts"
import * as RpcOverLink from "../../src/session/RpcOverLink.ts"
import * as Kit from "./RelayLinkKit.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {}

class TestRpcs extends RpcGroup.make(
  Rpc.make("Echo", { payload: { bytes: Schema.Uint8ArrayFromSelf }, success: Schema.Uint8ArrayFromSelf }),
  Rpc.make("Fail", { error: Refused }),
  Rpc.make("Die"),
  Rpc.make("Hang"),
  Rpc.make("Headers", { success: Schema.Record({ key: Schema.String, value: Schema.String }) }),
  Rpc.make("Trace", { success: Schema.String }),
  Rpc.make("Big", { payload: { bytes: Schema.Number }, success: Schema.Uint8ArrayFromSelf }),
  Rpc.make("Burst", {
    payload: { count: Schema.Number, bytes: Schema.Number },
    success: Schema.Uint8ArrayFromSelf,
    stream: true
  }),
  Rpc.make("Flood", { payload: { bytes: Schema.Number }, success: Schema.Uint8ArrayFromSelf, stream: true })
) {}

const state = { hanging: 0, interrupted: 0 }
const handlers = TestRpcs.toLayer({
  Echo: ({ bytes }) => Effect.succeed(bytes),
  Fail: () => new Refused({ why: "because" }),
  Die: () => Effect.die("boom"),
  Hang: () =>
    Effect.zipRight(Effect.sync(() => state.hanging++), Effect.never).pipe(
      Effect.onInterrupt(() => Effect.sync(() => state.interrupted++))
    ),
  Headers: (_, { headers }) => Effect.succeed({ ...headers }),
  Trace: () => Effect.map(Effect.orDie(Effect.currentSpan), (span) => span.traceId),
  Big: ({ bytes }) => Effect.succeed(new Uint8Array(bytes)),
  Burst: ({ bytes, count }) =>
    Stream.fromIterable(Array.from({ length: count }, (_, i) => new Uint8Array(bytes).fill(i))).pipe(
      Stream.rechunk(count)
    ),
  Flood: ({ bytes }) => Stream.repeatEffect(Effect.succeed(new Uint8Array(bytes))).pipe(Stream.rechunk(1))
})

/** A server with `TestRpcs`; `links` gets the server's end of each link. */
const serve = Effect.fnUntraced(function*(options: RpcOverLink.ServerOptions = {}) {
  const links = yield* Queue.unbounded<Link>()
  const rpc = yield* RpcOverLink.makeServer(options)
  yield* RpcServer.layer(TestRpcs, { concurrency: "unbounded", disableFatalDefects: true }).pipe(
    Layer.provide(handlers),
    Layer.provide(Layer.succeed(RpcServer.Protocol, rpc.protocol)),
    Layer.launch,
    Effect.forkScoped
  )
  const server = yield* Kit.serve({
    onLink: (link, { nodeKey }) => Effect.zipRight(links.offer(link), rpc.serve(link, nodeKey))
  })
  return { ...server, rpc, links }
})

const connect = Effect.fnUntraced(
  function*(server: Kit.Served, carrier: Kit.CarrierName, options: RpcOverLink.ClientOptions = {}) {
    const identity = Kit.makeIdentity()
    const { link } = yield* Kit.connect(server, carrier, { identity })
    const protocol = yield* RpcOverLink.makeClient(link, options)
    const client = yield* RpcClient.make(TestRpcs).pipe(Effect.provideService(RpcClient.Protocol, protocol))
    return { client, identity, link }
  }
)

const promise = <A>(run: () => Promise<A>) => Effect.promise(run)
const failure = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) ? String(exit.cause) : "no failure"

describe.each(Kit.CARRIERS)("calls over %s", (carrier) => {
  it("answers, fails and dies as handlers do, also in parallel", () =>
    Kit.run(Effect.gen(function*() {
      const { client } = yield* connect(yield* serve(), carrier)
      const bytes = randomBytes(400)
      for (let i = 0; i < 20; i++) expect(Buffer.from(yield* client.Echo({ bytes })).equals(bytes)).toBe(true)
      const all = yield* Effect.forEach(
        Array.from({ length: 500 }, (_, i) => i),
        (i) => client.Echo({ bytes: Buffer.alloc(50, i) }),
        { concurrency: 50 }
      )
      expect(all.map((b) => b[0])).toEqual(all.map((_, i) => i & 255))
      expect(yield* Effect.flip(client.Fail())).toMatchObject({ _tag: "Refused", why: "because" })
      expect(failure(yield* Effect.exit(client.Die()))).toContain("boom")
      yield* client.Echo({ bytes })
    })))

  it("passes the proven node key and the client's trace context", () =>
    Kit.run(Effect.gen(function*() {
      const { client, identity } = yield* connect(yield* serve(), carrier)
      const headers = yield* RpcClient.withHeaders(client.Headers(), {
        node: "forged",
        admin: "yes",
        traceparent: "00-a-b-01"
      })
      expect(headers).toEqual({ node: identity.key, traceparent: "00-a-b-01" })
    })))

  it("continues the caller's trace in the handler", () =>
    Kit.run(Effect.gen(function*() {
      const { client } = yield* connect(yield* serve(), carrier)
      const span = Tracer.externalSpan({
        traceId: "0af7651916cd43dd8448eb211c80319c",
        spanId: "b7ad6b7169203331",
        sampled: true
      })
      expect(yield* Effect.withParentSpan(client.Trace(), span)).toBe(span.traceId)
    })))

  it("splits a long chunk, and fails a long answer", () =>
    Kit.run(Effect.gen(function*() {
      const { client } = yield* connect(yield* serve(), carrier)
      const got = yield* Stream.runCollect(client.Burst({ count: 40, bytes: 5000 }))
      expect([...got].map((b) => b[0])).toEqual(Array.from({ length: 40 }, (_, i) => i))
      expect(failure(yield* Effect.exit(client.Big({ bytes: 70_000 })))).toContain("at most 65536")
      expect((yield* client.Big({ bytes: 60_000 })).length).toBe(60_000)
      expect(failure(yield* Effect.exit(client.Echo({ bytes: new Uint8Array(70_000) })))).toContain("at most 65536")
      yield* client.Echo({ bytes: new Uint8Array(1) })
    })))

  it("accepts 64 calls of a link at a time", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* serve({ maxInFlight: 64 })
      const { client } = yield* connect(server, carrier)
      const hanging = yield* Effect.forEach(Array.from({ length: 64 }), () => Effect.fork(client.Hang()))
      yield* promise(() => Kit.sleep(100))
      expect(failure(yield* Effect.exit(client.Echo({ bytes: new Uint8Array(1) })))).toContain("more than 64 calls")
      const before = state.interrupted
      yield* Effect.forEach(hanging, Fiber.interrupt)
      expect(yield* promise(() => Kit.within(Kit.HANG_MS, () => state.interrupted === before + 64))).toBe(true)
      yield* client.Echo({ bytes: new Uint8Array(1) })
    })))

  it("fails every call at once when the link dies", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* serve()
      const { client } = yield* connect(server, carrier)
      const link = yield* server.links.take
      const before = { ...state }
      const calls = yield* Effect.forEach(Array.from({ length: 10 }), () => Effect.fork(client.Hang()))
      yield* promise(() => Kit.within(Kit.HANG_MS, () => state.hanging === before.hanging + 10))
      link.destroy("died")
      for (const call of calls) expect(failure(yield* Fiber.await(call))).toContain("the link to the relay ended")
      expect(failure(yield* Effect.exit(client.Echo({ bytes: new Uint8Array(1) })))).toContain(
        "the link to the relay ended"
      )
      expect(
        yield* promise(() =>
          Kit.within(Kit.HANG_MS, () => state.interrupted === before.interrupted + 10 && server.rpc.clients() === 0)
        )
      ).toBe(true)
    })))

  it("fails calls with the server's reason when it stops", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* serve()
      const { client } = yield* connect(server, carrier)
      const call = yield* Effect.fork(client.Hang())
      yield* promise(() => Kit.sleep(50))
      yield* server.stop({ goAwayMs: 0 })
      expect(failure(yield* Fiber.await(call))).toContain("the relay stops")
    })))

  it("finds a server that no longer answers", () =>
    Kit.run(Effect.gen(function*() {
      // Reads, and never says a word.
      const server = yield* Kit.serve({
        onLink: (link) =>
          promise(async () => {
            while (await link.read() !== undefined);
          })
      })
      const { client } = yield* connect(server, carrier, { pingEvery: "150 millis" })
      expect(failure(yield* Effect.exit(client.Hang()))).toContain("no longer answers")
    })))

  it("keeps idle clients that ping, and cuts silent ones", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* serve({ silenceLimit: "3 seconds" })
      const lively = yield* connect(server, carrier, { pingEvery: "1 second" })
      const silent = yield* connect(server, carrier, { pingEvery: "1 hour" })
      yield* promise(() => silent.link.closed)
      expect(lively.link.isClosed()).toBe(false)
      yield* lively.client.Echo({ bytes: new Uint8Array(1) })
    })))

  it("cuts a client that reads no answers, and serves others", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* serve()
      const good = yield* connect(server, carrier)
      const { link } = yield* Kit.connect(server, carrier)
      yield* server.links.take
      const serverEnd = yield* server.links.take
      const packr = yield* packer
      const say = (message: object) => promise(() => link.write(framed(packr(message))).catch(() => {})) // once cut
      // 60 streams without end, and an Ack for every chunk that is never read.
      for (let id = 0; id < 60; id++) {
        yield* say({ _tag: "Request", id: `${id}`, tag: "Flood", payload: { bytes: 30_000 }, headers: [] })
      }
      yield* promise(async () => {
        for (let i = 0; i < 100_000 && !serverEnd.isClosed(); i++) {
          await link.write(framed(packr({ _tag: "Ack", requestId: `${i % 60}` }))).catch(() => {})
        }
      })
      expect(yield* promise(() => serverEnd.closed)).toMatchObject({ by: "here", reason: "too slow" })
      yield* good.client.Echo({ bytes: new Uint8Array(1) })
    })))

  it("cuts only the link that breaks the protocol", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* serve()
      const good = yield* connect(server, carrier)
      const packr = yield* packer
      const request = { _tag: "Request", id: "1", tag: "Hang", payload: undefined, headers: [] }
      const plain = Buffer.from(packr(request))
      const at = plain.indexOf(Buffer.from([0xd4, 0, 0])) // `undefined`
      const withSet = Buffer.concat([plain.subarray(0, at), Uint8Array.of(0xd4, 0x73, 0, 0x90), plain.subarray(at + 3)])
      const rude: ReadonlyArray<Uint8Array> = [
        framed(withSet),
        framed(randomBytes(50)),
        framed(packr(null)),
        framed(packr({ _tag: "Nonsense" })),
        framed(packr({ ...request, id: "1e5" })),
        framed(packr({ ...request, headers: [["a"]] })),
        framed(packr({ _tag: "Ack", requestId: {} })),
        Buffer.concat([framed(packr(request)), framed(packr(request))]),
        Uint8Array.of(0, 1, 0, 1), // 65,537 bytes announced
        framed(Uint8Array.of(0xdd, 0x01, 0xff, 0xff, 0xff)), // an array of 33 million
        framed(Uint8Array.of(0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61)) // a record definition
      ]
      for (const bytes of rude) {
        const { link } = yield* Kit.connect(server, carrier)
        yield* promise(() => link.write(bytes))
        expect(yield* promise(() => Promise.race([link.closed, Kit.sleep(Kit.HANG_MS)]))).toMatchObject({
          by: "peer",
          code: 1002
        })
      }
      yield* good.client.Echo({ bytes: new Uint8Array(1) })
      expect(failure(
        yield* Effect.exit(Effect.gen(function*() {
          const { client } = yield* connect(server, carrier)
          // A payload that no schema knows is answered, not cut.
          return yield* client.Echo({ bytes: "text" as unknown as Uint8Array })
        }))
      )).toContain("Uint8Array")
    })))

  it("spends little on 7 MB of small calls", () =>
    Kit.run(Effect.gen(function*() {
      const server = yield* serve()
      const { link } = yield* Kit.connect(server, carrier)
      const packr = yield* packer
      const call = (id: number) =>
        framed(
          packr({ _tag: "Request", id: `${id}`, tag: "Echo", payload: { bytes: new Uint8Array(60_000) }, headers: [] })
        )
      const drained = promise(() => Kit.readBytes(link, 120 * 60_000))
      const reading = yield* Effect.fork(drained)
      const cpu = process.cpuUsage()
      yield* promise(async () => {
        const all = Buffer.concat(Array.from({ length: 120 }, (_, i) => call(i)))
        for (let at = 0; at < all.length; at += 16_384) await link.write(all.subarray(at, at + 16_384))
      })
      yield* Fiber.join(reading)
      const used = process.cpuUsage(cpu)
      expect((used.user + used.system) / 1000).toBeLessThan(6000) // of re-reading: 16,000
    })))
})

const packer = Effect.promise(async () => {
  const { RpcSerialization } = await import("@effect/rpc")
  const parser = RpcSerialization.makeMsgPack({ useRecords: false }).unsafeMake()
  return (message: unknown) => parser.encode(message) as Uint8Array
})
