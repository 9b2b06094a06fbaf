/**
 * Gathers the metrics of a whole process in the main thread: those that each thread answers, and
 * those that the supervisor knows itself. A thread that does not answer in time delays nothing. Its
 * last answer is used instead, and the miss is counted.
 */
import { Cause, Effect, Option } from "effect"
import * as Descriptors from "../../../services/host/Descriptors.ts"
import * as Metrics from "../../../services/telemetry/Metrics.ts"
import * as LoopHealth from "../thread/LoopHealth.ts"
import type { Health } from "../thread/ThreadContract.ts"
import type * as Status from "./Status.ts"

/**
 * How long a thread may take to answer. A thread whose event loop turns answers within a few ms,
 * and scrapers give up after about ten seconds.
 */
export const DEADLINE = "1 second"
const MAIN = "main"

/** A thread as the supervisor holds it. */
export type Thread = Status.Entry & {
  readonly actors: ReadonlyArray<Status.Entry>
}
type Loop = Omit<Health, "actors" | "limits">

/**
 * Why a thread did not answer. `down`: it is starting, or was given up. `late`: it missed the
 * deadline. `died`: the call failed.
 */
type Missing = "down" | "late" | "died"

/** Metrics of the process, and the readings that feed them. */
export interface RuntimeMetrics {
  /** Asks all threads and returns the metrics of the process. */
  readonly read: Effect.Effect<ReadonlyArray<Metrics.Family>>
  /** Takes a reading of a thread's health. The supervisor calls this for each reading. */
  readonly onHealth: (thread: string, health: Loop) => void
  /**
   * Takes a reading of the main thread's own event loop. The supervisor runs this as often as it
   * asks the other threads for their health.
   */
  readonly sampleMain: Effect.Effect<void>
}

/** Makes the metrics of these threads. `ask` fails with "down" if there is no thread to ask. */
export const make = Effect.fnUntraced(function*<T extends Thread>(
  threads: ReadonlyArray<T>,
  ask: (thread: T) => Effect.Effect<ReadonlyArray<Metrics.Family>, unknown>
) {
  const known = new Map(threads.map(({ name }) => [name, new Known()]))
  const loops = new Map<string, { readonly delay: Metrics.Distribution; last: Loop }>()
  const missing = new Metrics.Counts<`${string} ${Missing}`>()
  const mainLoop = yield* LoopHealth.make

  const onHealth = (thread: string, health: Loop) => {
    const loop = loops.get(thread) ?? { delay: new Metrics.Distribution(), last: health }
    loops.set(thread, loop)
    loop.last = health
    loop.delay.observe(health.loopDelayMaxMs / 1000)
  }
  const askOne = (thread: T) => {
    const { incarnation, name } = thread
    return ask(thread).pipe(
      Effect.catchAllCause((cause) =>
        Effect.fail<Missing>(Option.contains(Cause.failureOption(cause), "down") ? "down" : "died")
      ),
      Effect.timeoutFail({ duration: DEADLINE, onTimeout: (): Missing => "late" }),
      Effect.match({
        onFailure: (why) => missing.add(`${name} ${why}`),
        onSuccess: (families) => known.get(name)?.onAnswer(incarnation, families)
      })
    )
  }
  const read = Effect.gen(function*() {
    yield* Effect.forEach(threads, askOne, { concurrency: "unbounded", discard: true })
    const own = [...ofActors(threads), ...ofThreads(threads, loops), ofMissing(missing), ...ofProcess()]
    return Metrics.merge([...Array.from(known.values(), (it) => it.families()), own])
  })
  const sampleMain = Effect.map(mainLoop, (health) => onHealth(MAIN, health))
  return { read, onHealth, sampleMain } satisfies RuntimeMetrics
})

/** Metrics of one thread, over all of its incarnations. Counts of a dead incarnation are kept. */
class Known {
  #incarnation = 0
  #last: ReadonlyArray<Metrics.Family> = []
  #before: ReadonlyArray<Metrics.Family> = []

  onAnswer(incarnation: number, families: ReadonlyArray<Metrics.Family>): void {
    if (incarnation !== this.#incarnation) this.#before = Metrics.merge([this.#before, Metrics.lasting(this.#last)])
    this.#incarnation = incarnation
    this.#last = families
  }

  families(): ReadonlyArray<Metrics.Family> {
    return Metrics.merge([this.#before, this.#last])
  }
}

const ofActors = (threads: ReadonlyArray<Thread>): ReadonlyArray<Metrics.Family> => {
  const actors = threads.flatMap((thread) => thread.actors.map((actor) => ({ actor, thread: thread.name })))
  return [
    Metrics.counter(
      { name: "sallyport_actor_restarts", help: "Times that an actor was started again, with its thread or without." },
      actors.map(({ actor, thread }) => ({ labels: { actor: actor.name, thread }, value: actor.restarts }))
    ),
    Metrics.gauge(
      { name: "sallyport_actor_up", help: "1: the actor does its work. 0: it is starting, restarting or given up." },
      actors.map(({ actor, thread }) => ({
        labels: { actor: actor.name, thread },
        value: Number(actor.state === "up")
      }))
    )
  ]
}

const ofThreads = (
  threads: ReadonlyArray<Thread>,
  loops: ReadonlyMap<string, { readonly delay: Metrics.Distribution; readonly last: Loop }>
): ReadonlyArray<Metrics.Family> => {
  const each = (value: (loop: Loop) => number) =>
    Array.from(loops, ([thread, { last }]) => ({ labels: { thread }, value: value(last) }))
  return [
    Metrics.counter(
      { name: "sallyport_thread_restarts", help: "Times that a thread was started again." },
      threads.map(({ name: thread, restarts }) => ({ labels: { thread }, value: restarts }))
    ),
    Metrics.histogram({
      name: "sallyport_thread_loop_delay_seconds",
      unit: "seconds",
      help: "How late the event loop ran a timer: the worst of each second."
    }, Array.from(loops, ([thread, { delay }]) => ({ labels: { thread }, of: delay }))),
    Metrics.gauge({
      name: "sallyport_thread_utilization_ratio",
      unit: "ratio",
      help: "Share of the last second in which the event loop was busy."
    }, each(({ loopUtilization }) => loopUtilization)),
    Metrics.gauge({
      name: "sallyport_thread_heap_bytes",
      unit: "bytes",
      help: "JavaScript heap in use."
    }, each(({ heapUsedBytes }) => heapUsedBytes))
  ]
}

const ofMissing = (missing: Metrics.Counts<`${string} ${Missing}`>): Metrics.Family =>
  Metrics.counter(
    {
      name: "sallyport_scrape_missing_threads",
      help: "Scrapes for which a thread did not answer: its numbers were those of an earlier scrape."
    },
    missing.points("both").map(({ labels, value }) => {
      const [thread = "", cause = ""] = (labels["both"] ?? "").split(" ")
      return { labels: { thread, cause }, value }
    })
  )

/** Metrics of the process, under the names that dashboards for processes know. */
const ofProcess = (): ReadonlyArray<Metrics.Family> => {
  const { system, user } = process.cpuUsage()
  const { limit, open } = Descriptors.read()
  const one = (value: number) => [{ labels: {}, value }]
  return [
    Metrics.counter(
      { name: "process_cpu_seconds", unit: "seconds", help: "CPU time of all threads." },
      one((system + user) / 1e6)
    ),
    Metrics.gauge(
      { name: "process_resident_memory_bytes", unit: "bytes", help: "Memory of the process." },
      one(process.memoryUsage.rss())
    ),
    Metrics.gauge({ name: "process_open_fds", help: "Descriptors in use: open files and sockets." }, one(open)),
    Metrics.gauge(
      { name: "process_max_fds", help: "Descriptors that the process may have." },
      limit === Infinity ? [] : one(limit)
    ),
    Metrics.gauge(
      { name: "process_start_time_seconds", unit: "seconds", help: "When the process started, since the epoch." },
      one(performance.timeOrigin / 1000)
    )
  ]
}
