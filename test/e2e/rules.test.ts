/** Rules that change while flows run: what is no longer allowed ends, and what is allowed again opens. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schedule } from "effect"
import { once } from "node:events"
import type { Socket } from "node:net"
import { decode } from "../../src/services/config/Config.ts"
import { Socks5Refused } from "../../src/transport/flow/Socks5Client.ts"
import * as World from "./support/World.ts"

const ROUNDS = 3
/** "Connection not allowed by ruleset" (RFC 1928, section 6). */
const NOT_ALLOWED = 2

/** Ends when the flow does, in whichever way the application sees it. */
const ended = (socket: Socket) =>
  Effect.async<void>((resume) => {
    socket.once("error", () => undefined)
    socket.once("close", () => resume(Effect.void))
    socket.resume()
  })

const answered = (socket: Socket, word: string) =>
  Effect.promise(async () => {
    const data = once(socket, "data")
    socket.write(word)
    const [bytes] = await data as [Buffer]
    assert.strictEqual(String(bytes), word)
  })

const isNotAllowed = (error: Error) => error instanceof Socks5Refused && error.reply === NOT_ALLOWED

describe("a rule that is taken away", () => {
  it.scopedLive("ends its open flows and refuses new ones, every time", () =>
    Effect.gen(function*() {
      const port = yield* World.serve((socket) => socket.pipe(socket))
      const resources = ["wiki", "mail"].map((name) => ({
        name,
        address: "127.0.0.1",
        tcp: [port],
        allowLoopback: true
      }))
      const world = yield* World.make({ resources })
      const allow = (names: ReadonlyArray<string>) =>
        Effect.gen(function*() {
          const relay = {
            role: "relay" as const,
            name: "relay",
            stateDir: "relay",
            listen: { https: "127.0.0.1:0", udp: "127.0.0.1:0" },
            advertise: { host: "127.0.0.1" }
          }
          const access = [{ clients: ["laptop"], resources: [...names] }]
          yield* world.relay.reload(yield* decode({ ...relay, resources, access }, { baseDir: world.dir }))
        })
      const mail = yield* world.dial("mail", port)
      yield* answered(mail, "before")
      for (let round = 1; round <= ROUNDS; round++) {
        const wiki = yield* Effect.retry(world.dial("wiki", port), {
          times: 6000,
          schedule: Schedule.spaced("20 millis")
        })
        yield* answered(wiki, `round ${round}`)
        const cut = yield* Effect.fork(ended(wiki))
        yield* allow(["mail"])
        yield* Fiber.join(cut)
        // Until it has the new grant, the client asks the connector, which knows no such resource any more.
        yield* Effect.flip(world.dial("wiki", port)).pipe(
          Effect.filterOrFail(isNotAllowed, (other) => other),
          Effect.retry({ times: 6000, schedule: Schedule.spaced("20 millis") })
        )
        yield* answered(mail, `still there in round ${round}`)
        yield* allow(["mail", "wiki"])
      }
    }))
})
