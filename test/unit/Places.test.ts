import { assert, describe, it } from "@effect/vitest"
import type { Limit } from "../../src/services/telemetry/Limits.ts"
import { IDLE_MS, MUTE_MS, Places } from "../../src/transport/flow/Places.ts"

const setUp = (flows = 3) => {
  const world = { now: 0, room: true, descriptors: 100, met: Array<Limit>(), cut: Array<string>() }
  const places = new Places({
    flows,
    now: () => world.now,
    hasRoom: (descriptors) => world.room && descriptors <= world.descriptors,
    met: (limit) => void world.met.push(limit)
  })
  const take = (name: string, isSettled = true, moved = () => 0, hasSocket = true) =>
    places.take({ moved, cut: () => void world.cut.push(name) }, { isSettled, hasSocket })
  return { world, places, take }
}

describe("the places of flows", () => {
  it("are refused past the limit, until one leaves", () => {
    const { take, world } = setUp(1)
    const first = take("first")
    assert.isNull(take("second"))
    assert.deepStrictEqual(world.met, ["flows"])
    first?.leave()
    assert.isNotNull(take("third"))
    assert.deepStrictEqual(world.cut, [])
  })

  it("are refused while descriptors are short", () => {
    const { take, world } = setUp()
    world.room = false
    assert.isNull(take("one"))
    assert.deepStrictEqual(world.met, ["descriptors"])
    world.room = true
    assert.isNotNull(take("two"))
  })

  it("count sockets that are still to be opened", () => {
    const { take, world } = setUp(10)
    world.descriptors = 2
    const dial = () => take("dial", true, () => 0, false)
    const [first, second] = [dial(), dial()]
    assert.isNull(dial()) // both names are still being looked up
    world.descriptors = 1
    first?.opened() // it is among the descriptors in use now
    assert.isNull(dial())
    second?.leave()
    second?.leave()
    assert.isNotNull(dial())
  })

  it("are taken from whoever has been idle the longest", () => {
    const { places, take, world } = setUp(3)
    let moved = 0
    take("busy", true, () => moved)
    take("idle")
    world.now = 1000
    take("less idle")
    world.now = IDLE_MS + 1
    moved = 10
    places.tick()
    assert.isNotNull(take("new"))
    assert.deepStrictEqual(world.cut, ["idle"])
    assert.isNull(take("too early for the next"))
    world.now = 2 * IDLE_MS - 1
    moved = 20 // since the last sample
    assert.isNotNull(take("newer"))
    assert.deepStrictEqual(world.cut, ["idle", "less idle"])
  })

  it("are taken first from connections that say nothing", () => {
    const { take, world } = setUp(2)
    take("idle flow")
    world.now = IDLE_MS
    take("mute", false)
    world.now += MUTE_MS
    assert.isNotNull(take("new"))
    assert.deepStrictEqual(world.cut, ["mute"])
  })

  it("stay with a new or just settled connection", () => {
    const { take, world } = setUp(2)
    take("first", false)?.settle()
    take("second", false)
    world.now = MUTE_MS - 1
    assert.isNull(take("third"))
    assert.deepStrictEqual(world.cut, [])
  })
})
