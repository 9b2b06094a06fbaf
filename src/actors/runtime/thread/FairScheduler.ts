/**
 * Scheduler for the fibers of a thread that shares its event loop fairly with sockets and timers.
 *
 * Effect's own scheduler goes on in microtasks while any fiber is ready, for up to 2,048 rounds in
 * each fiber. On a busy host, where work waits all the time, timers and sockets then stand still:
 * for 10 to 40 s at a load of 15 on two cores. This one gives the event loop a turn after each
 * slice, and is otherwise as quick.
 */
import { type Fiber, FiberRef, Scheduler } from "effect"

/**
 * How long fibers may run before sockets and timers get their turn, in ms. A turn costs some
 * microseconds, so shorter slices would gain little. Longer slices would be visible as latency.
 */
export const SLICE_MS = 5

export class FairScheduler implements Scheduler.Scheduler {
  readonly #now: () => number
  /** Tasks that were scheduled since the round under way began. */
  readonly #next = new Scheduler.PriorityBuckets()
  /** The round under way: lower priority numbers first, then in the order of scheduling. */
  #round: Array<Scheduler.Task> = []
  #at = 0
  #running = false
  /** When fibers first ran in this turn of the event loop. `null` if none has yet. */
  #turnSince: number | null = null

  /** `now`: clock of the slices, in ms (monotonic). */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  shouldYield(fiber: Fiber.RuntimeFiber<unknown, unknown>): number | false {
    return fiber.currentOpCount > fiber.getFiberRef(FiberRef.currentMaxOpsBeforeYield)
      ? fiber.getFiberRef(FiberRef.currentSchedulingPriority)
      : false
  }

  scheduleTask(task: Scheduler.Task, priority: number): void {
    this.#next.scheduleTask(task, priority)
    if (this.#running) return
    this.#running = true
    this.#continue()
  }

  /** Runs tasks of the round until it or the slice is over. */
  readonly #drain = (): void => {
    if (this.#at === this.#round.length && !this.#beginRound()) {
      this.#running = false
      return
    }
    const since = this.#sliceStart()
    do this.#round[this.#at++]!()
    while (this.#at < this.#round.length && this.#now() - since < SLICE_MS)
    this.#continue()
  }

  /** Returns whether there is anything to run. */
  #beginRound(): boolean {
    const { buckets } = this.#next
    this.#next.buckets = []
    this.#at = 0
    this.#round = buckets.length === 1 ? buckets[0]![1] : buckets.flatMap(([, tasks]) => tasks)
    return this.#round.length > 0
  }

  /**
   * Goes on after what promises have resolved meanwhile, as Effect's scheduler does, or in the next
   * turn of the event loop if the slice is over.
   */
  #continue(): void {
    if (this.#now() - this.#sliceStart() < SLICE_MS) void Promise.resolve().then(this.#drain)
    else {
      setImmediate(() => {
        this.#turnSince = null
        this.#drain()
      })
    }
  }

  /** Returns when fibers first ran in this turn, and notices the turn's end. */
  #sliceStart(): number {
    if (this.#turnSince !== null) return this.#turnSince
    setImmediate(() => {
      this.#turnSince = null
    })
    return this.#turnSince = this.#now()
  }
}
