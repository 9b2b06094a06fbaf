import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, Fiber, Schedule, Stream } from "effect"
import { randomBytes } from "node:crypto"
import type { Socket } from "node:net"
import { DRAINING, StreamMux } from "../../src/actors/mux/StreamMuxRpcs.ts"
import type { Running } from "../../src/roles/Running.ts"
import { HANG_MS } from "../support/Hang.ts"
import * as World from "./support/World.ts"

const CHUNK = randomBytes(64 * 1024)

/** Sends chunks for as long as the other side listens, a few hundred a second. */
const drip = (socket: Socket) => {
  const timer = setInterval(() => socket.write(CHUNK), 5)
  socket.once("close", () => clearInterval(timer))
  socket.resume()
}

/** How much has come, whether it was what was sent, and whether the flow was cut. */
const watch = (socket: Socket) => {
  const seen = { bytes: 0, wrong: false, closed: false }
  let at = 0
  socket.on("data", (bytes: Buffer) => {
    for (let i = 0; i < bytes.length; i += 997) if (bytes[i] !== CHUNK[(at + i) % CHUNK.length]) seen.wrong = true
    at += bytes.length
    seen.bytes = at
  })
  for (const over of ["end", "close"]) socket.once(over, () => (seen.closed = true))
  socket.on("error", () => undefined)
  socket.resume()
  return seen
}

/** Waits until more than `before` bytes have come, or the flow is over. */
const until = (flow: ReturnType<typeof watch>, before: number) =>
  Effect.suspend(() => flow.closed || flow.bytes > before ? Effect.void : Effect.fail("still")).pipe(
    Effect.retry({ times: 1500, schedule: Schedule.spaced("100 millis") }),
    Effect.orDieWith(() => new Error(`nothing came after ${before} bytes`))
  )

const resource = (port: number) => ({ name: "drip", address: "127.0.0.1", tcp: [port], allowLoopback: true })

/** Ends the thread at once and waits until the actor on it is up again. */
const killAndAwait = (running: Running, thread: string) =>
  Effect.gen(function*() {
    const up = yield* Effect.fork(
      running.supervisor.events.pipe(
        Stream.filter(({ kind, name, state }) => kind === "thread" && name === thread && state === "up"),
        Stream.drop(1), // the replayed first start
        Stream.runHead
      )
    )
    yield* Effect.sleep("100 millis")
    yield* running.supervisor.kill(thread)
    yield* Effect.timeout(Fiber.join(up), HANG_MS)
  })

describe("supervision", () => {
  it.scopedLive("flows go on when a control actor's thread dies", () =>
    Effect.gen(function*() {
      const port = yield* World.serve(drip)
      const world = yield* World.make({ resources: [resource(port)], placement: "isolated" })
      const flow = watch(yield* world.dial("drip", port))
      yield* world.untilPath("direct")
      for (const thread of ["signaling", "stun", "pathProber", "relay"]) {
        for (const running of [world.client, world.connector]) {
          yield* killAndAwait(running, thread)
          yield* until(flow, flow.bytes)
          assert.isFalse(flow.closed, `the flow was cut when ${thread} died`)
          assert.isFalse(flow.wrong, `bytes changed when ${thread} died`)
        }
      }
      const again = watch(yield* world.dial("drip", port))
      yield* until(again, 0)
      assert.isFalse(again.closed, "new flows work after all that")
    }), 180_000)

  it.scopedLive(
    "new flows work soon after the data thread died",
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve(drip)
        const world = yield* World.make({ resources: [resource(port)] })
        const flow = watch(yield* world.dial("drip", port))
        yield* until(flow, 0)
        assert.isFalse(flow.closed)
        yield* world.client.supervisor.kill("data")
        // A door that is opened anew may have another port.
        const again = watch(yield* Effect.retry(world.dialAnew("drip", port), { times: 6000, schedule: World.spaced }))
        yield* until(again, 0)
        assert.isFalse(again.closed)
        assert.isTrue(flow.closed, "the old flow's socket was closed, not left hanging")
      }),
    120_000
  )

  it.scopedLive(
    "new flows work soon after the connector's data thread died",
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve(drip)
        const world = yield* World.make({ resources: [resource(port)] })
        const flow = watch(yield* world.dial("drip", port))
        yield* world.untilPath("direct")
        yield* world.connector.supervisor.kill("data")
        const dripping = Effect.gen(function*() {
          const again = watch(yield* world.dialAnew("drip", port))
          yield* Effect.sleep("300 millis")
          return again.bytes > 0 ? again : yield* Effect.fail("silent")
        })
        const again = yield* Effect.retry(dripping, { times: 6000, schedule: World.spaced })
        yield* Effect.retry(Effect.suspend(() => flow.closed ? Effect.void : Effect.fail("open")), {
          times: 1200,
          schedule: Schedule.spaced("100 millis")
        })
        yield* until(again, again.bytes)
        assert.isFalse(again.closed)
      }),
    120_000
  )

  it.scopedLive(
    "a draining connector still drains after its data thread died",
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve(drip)
        const { client, connector, dialAnew } = yield* World.make({ resources: [resource(port)] })
        yield* until(watch(yield* dialAnew("drip", port)), 0)
        if (connector.drain === null) return yield* Effect.dieMessage("a connector can be drained")
        assert.isTrue((yield* connector.drain.set(true)).draining)
        yield* killAndAwait(connector, "data")
        // Nothing but the thread's own settings tells it, until it is asked again.
        const declined = Effect.gen(function*() {
          const asked = yield* Effect.either(dialAnew("drip", port))
          assert.isTrue(Either.isLeft(asked), "a flow was opened by a draining connector")
          const [last] = yield* client.supervisor.ref(StreamMux).ask((mux) => mux.Refusals())
          return last?.why.includes(DRAINING) === true ? last : yield* Effect.fail("refused for another reason")
        })
        yield* Effect.retry(declined, { times: 600, schedule: World.spaced })
        yield* connector.drain.set(false)
        yield* until(watch(yield* dialAnew("drip", port)), 0)
      }),
    120_000
  )

  it.scopedLive(
    "direct flows survive the death of the relay's threads",
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve(drip)
        const world = yield* World.make({ resources: [resource(port)] })
        const flow = watch(yield* world.dial("drip", port))
        yield* world.untilPath("direct")
        for (const thread of ["control", "relay"]) {
          yield* killAndAwait(world.relay, thread)
          yield* until(flow, flow.bytes)
          assert.isFalse(flow.closed, `the flow was cut when the relay's ${thread} thread died`)
        }
        const again = watch(yield* Effect.retry(world.dial("drip", port), { times: 6000, schedule: World.spaced }))
        yield* until(again, 0)
        assert.isFalse(again.closed)
      }),
    120_000
  )

  it.scopedLive(
    "a relayed flow survives a dead RelayActor and relay restart",
    () =>
      Effect.gen(function*() {
        const port = yield* World.serve(drip)
        const client = { path: "relay" } as const
        const udpPort = yield* World.freeUdpPort
        const world = yield* World.make({ resources: [resource(port)], placement: "isolated", client, udpPort })
        const flow = watch(yield* world.dial("drip", port))
        for (const running of [world.client, world.connector]) yield* killAndAwait(running, "relay")
        yield* killAndAwait(world.relay, "relay")
        const before = flow.bytes
        yield* Effect.retry(
          Effect.suspend(() => flow.bytes > before + CHUNK.length ? Effect.void : Effect.fail("silent")),
          { times: 80, schedule: Schedule.spaced("100 millis") } // far less than between two keepalives
        )
        assert.isFalse(flow.closed)
        assert.isFalse(flow.wrong)
      }),
    120_000
  )
})
