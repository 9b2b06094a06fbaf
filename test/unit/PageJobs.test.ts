/** Periodic jobs of the pages: with fake timers each works in its fourth period as in its first. */
import { afterEach, assert, beforeEach, describe, it, vi } from "vitest"
import { poll } from "../../src/inspector/Poll.ts"

const PERIODS = 4
/** A page's code has types of its own, which are not those of tests. */
const KEEPER = new URL("../../src/app/Keeper.ts", import.meta.url).pathname
interface Keeper {
  readonly start: () => Promise<void>
}

/** The relay, as the page finds it. */
const relay = vi.hoisted(() => ({ isReachable: true, tries: 0, lose: (_why: string): void => undefined }))
vi.mock("../../src/browser/index.ts", () => ({
  connect: async () => {
    relay.tries++
    if (!relay.isReachable) throw Object.assign(new Error("not reached"), { reason: "unreachable" })
    const closed = new Promise<string>((resolve) => (relay.lose = resolve))
    return { closed, close: () => Promise.resolve() }
  }
}))

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
  vi.spyOn(Math, "random").mockReturnValue(0.5) // the middle of each wait
  vi.stubGlobal("document", { querySelector: () => null })
  vi.stubGlobal("addEventListener", () => undefined)
  vi.stubGlobal("removeEventListener", () => undefined)
  vi.stubGlobal("navigator", {
    locks: { request: (_: string, _options: object, hold: (lock: object) => unknown) => hold({}) }
  })
  Object.assign(relay, { isReachable: true, tries: 0 })
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

const pass = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1000)

/** A page that keeps its connection, and its present state. */
const open = async () => {
  const { Keeper } = await import(KEEPER) as { Keeper: new(onState: (state: { _tag: string }) => void) => Keeper }
  const page = { state: "" }
  void new Keeper(({ _tag }) => (page.state = _tag)).start()
  await pass(0)
  return page
}

describe("every period a page", () => {
  it("asks while it is seen, one question at a time", async () => {
    const page = { asked: 0, isHidden: false, answer: () => {} }
    const ask = () => new Promise<void>((resolve) => (page.asked++, page.answer = resolve))
    const end = poll({ ask, everyMs: 1000, isHidden: () => page.isHidden })
    for (let period = 1; period <= PERIODS; period++) {
      await pass(10)
      assert.strictEqual(page.asked, period, "no question before the last one is answered")
      page.answer()
      page.isHidden = true
      await pass(10)
      assert.strictEqual(page.asked, period, "a hidden page asks nothing")
      page.isHidden = false
      await pass(1)
    }
    page.answer()
    end()
    await pass(10)
    assert.strictEqual(page.asked, PERIODS + 1)
  })

  it("connects again when it lost its connection", async () => {
    const page = await open()
    for (let period = 1; period <= PERIODS; period++) {
      assert.deepStrictEqual([page.state, relay.tries], ["Connected", period])
      relay.lose("lost")
      await pass(0.5)
      assert.strictEqual(page.state, "Waiting")
      await pass(0.5)
    }
    assert.deepStrictEqual([page.state, relay.tries], ["Connected", PERIODS + 1])
  })

  it("tries again to reach its relay", async () => {
    relay.isReachable = false
    const page = await open()
    for (const seconds of [1, 2, 4, 8, 16, ...Array.from({ length: PERIODS }, () => 30)]) {
      const before = relay.tries
      await pass(seconds - 0.1)
      assert.deepStrictEqual([page.state, relay.tries], ["Waiting", before], `${seconds} s`)
      await pass(0.1)
      assert.strictEqual(relay.tries, before + 1, `${seconds} s`)
    }
    relay.isReachable = true
    await pass(30)
    assert.strictEqual(page.state, "Connected")
  })
})
