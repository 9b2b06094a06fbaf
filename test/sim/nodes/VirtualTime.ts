/**
 * Time itself, made virtual for the whole process while it is installed: the clocks and timers of the platform, on which Effect's
 * own clock and the data plane stand. So whole actors run in it unchanged.
 */
import { Timeline } from "../world/Timeline.ts"

/** 2026-01-01: documents are dated by it. */
const EPOCH_MS = 1_767_225_600_000
/** The monotonic clock's beginning, which nothing may take for zero. */
const BASE_MS = 1_000_000

/** As the platform: a delay that is none, or too long, is 1 ms. */
const MAX_DELAY_MS = 2 ** 31 - 1

type Callback = (...args: ReadonlyArray<unknown>) => void

const real = { setImmediate: globalThis.setImmediate }

export class VirtualTime {
  readonly timeline = new Timeline()

  /** Ms, monotonic; as `performance.now`. */
  readonly now = (): number => BASE_MS + this.timeline.now

  /** Answers with what undoes it. */
  install(): () => void {
    const { timeline } = this
    const schedule = (delayMs: number, run: () => void): Timer => {
      const timer = new Timer()
      timeline.after(delayMs, () => {
        if (timer.isOn) run()
      })
      return timer
    }
    const cancel = (timer: Timer | null | undefined) => timer?.cancel()
    const fakes: Record<string, unknown> = {
      setTimeout: (run: Callback, ms = 1, ...args: ReadonlyArray<unknown>) =>
        schedule(ms >= 1 && ms <= MAX_DELAY_MS ? ms : 1, () => run(...args)),
      clearTimeout: cancel,
      setImmediate: (run: Callback, ...args: ReadonlyArray<unknown>) => schedule(0, () => run(...args)),
      clearImmediate: cancel
    }
    const undo = Object.entries(fakes).map(([name, fake]) => replace(globalThis, name, fake))
    undo.push(
      replace(performance, "now", this.now),
      replace(Date, "now", () => EPOCH_MS + timeline.now),
      replace(process.hrtime, "bigint", () => BigInt(Math.round(this.now() * 1e6)))
    )
    return () => {
      for (const one of undo.toReversed()) one()
    }
  }

  /** Everything up to `ms`, with all that follows from each event at its time. */
  async runUntil(ms: number): Promise<void> {
    await settled()
    while (this.timeline.step(ms)) await settled()
    this.timeline.runUntil(ms)
  }
}

/** Fibers and promises have gone as far as they get without time. */
export const settled = (): Promise<void> => new Promise((resolve) => real.setImmediate(resolve))

class Timer {
  isOn = true
  cancel(): void {
    this.isOn = false
  }
  ref(): this {
    return this
  }
  unref(): this {
    return this
  }
}

const replace = (owner: object, name: string, value: unknown): () => void => {
  const before = Object.getOwnPropertyDescriptor(owner, name)
  Object.defineProperty(owner, name, { value, configurable: true, writable: true })
  return () => {
    if (before === undefined) Reflect.deleteProperty(owner, name)
    else Object.defineProperty(owner, name, before)
  }
}
