/**
 * Limits that this thread has reached. Code that refuses or cuts something because of a limit calls
 * `met`.
 *
 * The runtime logs it, counts it in the metrics, and passes it on to `sallyport doctor`. Each limit
 * is logged once, and again with its count if it is still being reached after `LOG_AGAIN_MS`.
 */
import { Schema } from "effect"
import * as Metrics from "./Metrics.ts"

interface Text {
  /** Describes what happened, for the log and for `doctor`. */
  readonly what: string
  readonly remedy: string
}

/** Texts of every limit, by its name. The metric's label `limit` has the same names. */
export const TEXT = {
  descriptors: {
    what:
      "the process has almost reached its limit of open files and sockets, so it refuses connections or cuts idle ones",
    remedy: "raise the limit: LimitNOFILE= in the systemd unit, `ulimit -n` in a shell, --ulimit nofile= of a container"
  },
  flows: {
    what: "this node has as many flows as its configuration allows, so it refuses connections or cuts idle ones",
    remedy: "see which program opens so many connections, or raise limits.flows in this configuration"
  },
  flows_per_client: {
    what: "one client has as many flows as this connector's configuration allows, so further ones are refused",
    remedy: "see which program opens so many connections there, or raise limits.flowsPerClient in this configuration"
  },
  flows_at_connector: {
    what: "a connector refuses this node's flows, because it has reached its own limit of flows",
    remedy: "close idle connections, or run sallyport doctor at the connector"
  },
  handshakes: {
    what: "too many connections to the SOCKS5 port have sent no request, so the oldest ones are cut",
    remedy: "find the program that connects to that port and sends nothing"
  },
  local_ports: {
    what: "this machine has no free port left for a connection to a resource",
    remedy: "widen net.ipv4.ip_local_port_range, or spread the connections over more resources' addresses or connectors"
  },
  buffers: {
    what:
      "programs leave so much received data unread that each flow may buffer only a little, which can make flows slower",
    remedy: "find the programs that open downloads and do not read them"
  },
  links: {
    what: "this relay has as many connections as it can hold, so it refuses new ones",
    remedy: "if these are your nodes, start another relay; otherwise find out where the connections come from"
  },
  turn: {
    what: "TURN has as many connections or allocations as it can hold, so it refuses new ones",
    remedy: "raise turn.quotas in the relay's configuration, or start another relay"
  }
} as const satisfies Readonly<Record<string, Text>>

/** Name of a limit that an operator should know about when it is reached. */
export type Limit = keyof typeof TEXT

/** One limit that a thread has reached. */
export const Met = Schema.Struct({
  limit: Schema.String,
  times: Schema.Int,
  /** Milliseconds since the last time. */
  agoMs: Schema.Number
})
export type Met = typeof Met.Type

/** Shortest time between two log entries about one limit, in milliseconds. */
export const LOG_AGAIN_MS = 10 * 60_000

interface Count {
  times: number
  at: number
  loggedTimes: number
  loggedAt: number
}

/** Counts the limits that one thread has reached. */
export class Limits {
  readonly #counts = new Map<Limit, Count>()
  readonly #now: () => number

  /** Takes a monotonic clock in milliseconds. */
  constructor(now: () => number) {
    this.#now = now
  }

  met(limit: Limit): void {
    const count = this.#counts.get(limit) ?? { times: 0, at: 0, loggedTimes: 0, loggedAt: -Infinity }
    this.#counts.set(limit, count)
    count.times += 1
    count.at = this.#now()
  }

  read(): ReadonlyArray<Met> {
    const now = this.#now()
    return Array.from(this.#counts, ([limit, { at, times }]) => ({ limit, times, agoMs: now - at }))
  }

  /**
   * Returns the limits that must be logged now, each with the number of times since it was last
   * logged.
   */
  takeNews(): ReadonlyArray<{ readonly limit: Limit; readonly times: number }> {
    const now = this.#now()
    return Array.from(this.#counts).flatMap(([limit, count]) => {
      const times = count.times - count.loggedTimes
      if (times === 0 || now - count.loggedAt < LOG_AGAIN_MS) return []
      count.loggedTimes = count.times
      count.loggedAt = now
      return [{ limit, times }]
    })
  }

  families(): ReadonlyArray<Metrics.Family> {
    return [
      Metrics.counter(
        { name: "sallyport_limits_met", help: "Times that something was refused or cut since a limit was met." },
        Array.from(this.#counts, ([limit, { times }]) => ({ labels: { limit }, value: times }))
      )
    ]
  }
}

/** The counts of this thread, which the functions below use. */
const ofThread = new Limits(() => performance.now())

/** Counts that this thread has reached a limit. */
export const met = (limit: Limit): void => ofThread.met(limit)
/** Returns the limits that this thread has reached. */
export const read = (): ReadonlyArray<Met> => ofThread.read()
/** Returns this thread's limits that must be logged now. */
export const takeNews = () => ofThread.takeNews()
/** Returns this thread's counts as metrics. */
export const families = (): ReadonlyArray<Metrics.Family> => ofThread.families()
