import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber } from "effect"
import { createHash, randomBytes } from "node:crypto"
import type { Socket } from "node:net"
import { vi } from "vitest"
import { Directory, layer } from "../../src/services/directory/Directory.ts"
import { Socks5Refused } from "../../src/transport/flow/Socks5Client.ts"
import { HANG_MS } from "../support/Hang.ts"
import * as World from "./support/World.ts"

/** Everything until the far end closes its side. (An async iterator would destroy the socket behind the end.) */
const collect = (socket: Socket): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const parts: Array<Buffer> = []
    socket.on("data", (part: Buffer) => parts.push(part))
    socket.once("end", () => resolve(Buffer.concat(parts)))
    socket.once("error", reject)
    socket.resume()
  })
const readAll = (socket: Socket): Effect.Effect<Buffer, Error> =>
  Effect.tryPromise({ try: () => collect(socket), catch: (cause) => cause as Error })

const echo = (socket: Socket) => void socket.pipe(socket)

const resource = (name: string, port: number) => ({ name, address: "127.0.0.1", tcp: [port], allowLoopback: true })

const replyOf = (result: Either.Either<Socket, Error>) =>
  Either.isLeft(result) && result.left instanceof Socks5Refused ? result.left.reply : "connected"

describe("the main job", () => {
  it.scopedLive("uses the relay at once, then a direct path", () =>
    Effect.gen(function*() {
      const port = yield* World.serve(echo)
      const world = yield* World.make({ resources: [resource("echo", port)] })
      const socket = yield* world.dial("echo", port)
      const first = yield* world.peer
      assert.include(["relay-udp", "direct"], first?.path)
      assert.isNotEmpty(first?.reason)
      const sent = randomBytes(300_000)
      const got = readAll(socket)
      socket.write(sent.subarray(0, 100_000))
      const direct = yield* world.untilPath("direct")
      assert.isNotNull(direct.rttMs)
      socket.write(sent.subarray(100_000))
      socket.end()
      const back = yield* got
      assert.strictEqual(
        createHash("sha256").update(back).digest("hex"),
        createHash("sha256").update(sent).digest("hex")
      )
      assert.strictEqual((yield* world.peer)?.name, "office")
    }))

  it.scopedLive("says why a target is refused, unknown, denied or slow", () =>
    Effect.gen(function*() {
      const port = yield* World.serve(echo)
      const closed = yield* Effect.scoped(World.serve(echo))
      const world = yield* World.make({
        resources: [
          resource("echo", port),
          resource("closed", closed),
          { name: "gone", address: "does-not-exist.invalid", tcp: [80] },
          { name: "own", address: "127.0.0.1", tcp: [port] },
          resource("secret", port)
        ],
        access: [{ clients: ["laptop"], resources: ["echo", "closed", "gone", "own"] }]
      })
      const ask = (host: string, at: number) => Effect.map(Effect.either(Effect.scoped(world.dial(host, at))), replyOf)
      assert.strictEqual(yield* ask("echo", port), "connected")
      assert.strictEqual(yield* ask("closed", closed), 5, "refused by the resource")
      assert.strictEqual(yield* ask("gone", 80), 4, "the connector cannot resolve it")
      assert.strictEqual(yield* ask("nonsense", 80), 4, "no resource of that name")
      assert.strictEqual(yield* ask("echo", port === 1 ? 2 : 1), 2, "a port that is not listed")
      assert.strictEqual(yield* ask("secret", port), 2, "no access")
      assert.strictEqual(yield* ask("own", port), 2, "the connector's own loopback without allowLoopback")
    }))

  it.scopedLive("passes a half-close both ways, in both orders", () =>
    Effect.gen(function*() {
      const answering = yield* World.serve((socket) => {
        // Reads to the end first, then answers: only a half-close lets that work.
        void collect(socket).then((all) => socket.end(`got ${all.length}`))
      })
      let late = ""
      const speakingFirst = yield* World.serve((socket) => {
        socket.end("bye")
        void collect(socket).then((all) => (late = String(all)))
      })
      const world = yield* World.make({
        resources: [resource("answering", answering), resource("first", speakingFirst)]
      })
      const asking = yield* world.dial("answering", answering)
      const answer = readAll(asking)
      asking.end("x".repeat(50_000))
      assert.strictEqual(String(yield* answer), "got 50000")
      const listening = yield* world.dial("first", speakingFirst)
      assert.strictEqual(String(yield* readAll(listening)), "bye")
      listening.end("late but delivered")
      yield* Effect.promise(() => vi.waitFor(() => assert.strictEqual(late, "late but delivered"), HANG_MS))
    }))

  it.scopedLive("ends a removed client's flow and refuses its return", () =>
    Effect.gen(function*() {
      const port = yield* World.serve(echo)
      const world = yield* World.make({ resources: [resource("echo", port)] })
      const socket = yield* world.dial("echo", port)
      const cut = Effect.async<void>((resume) => {
        socket.once("close", () => resume(Effect.void))
      })
      socket.on("error", () => undefined)
      const waiting = yield* Effect.fork(cut)
      const directory = yield* Effect.provide(Directory, layer({ stateDir: world.relayConfig.stateDir }))
      yield* directory.removeNode("laptop")
      yield* Fiber.join(waiting)
      assert.notStrictEqual(replyOf(yield* Effect.either(Effect.scoped(world.dial("echo", port)))), "connected")
    }))

  it.scopedLive("opens flows by forwards, and reports where they listen", () =>
    Effect.gen(function*() {
      const port = yield* World.serve(echo)
      const world = yield* World.make({
        resources: [resource("echo", port)],
        client: { forwards: [{ listen: "127.0.0.1:0", resource: "echo", port }] }
      })
      const [host = "", at = ""] = (world.client.listen["forward1"] ?? "").split(":")
      const socket = yield* World.connectTo({ host, port: Number(at) })
      const got = readAll(socket)
      socket.end("through a forward")
      assert.strictEqual(String(yield* got), "through a forward")
    }))
})
