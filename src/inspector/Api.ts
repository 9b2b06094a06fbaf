/**
 * Answers of the admin API, as far as the page shows them. Another version may leave fields out.
 * Times are epoch ms.
 */
/** A peer with an open session. `sallyport status` shows the same fields. */
export interface Peer {
  readonly name: string
  readonly path: string | null
  readonly rttMs: number | null
  readonly reason: string
  readonly flows: number
  readonly bytesIn: number
  readonly bytesOut: number
}
/** Status of one actor. */
export interface Actor {
  readonly name: string
  readonly state: string
  readonly restarts: number
  readonly since: number
  readonly lastError: string | null
  readonly queues?: ReadonlyArray<{ readonly name: string; readonly capacity: number; readonly depth: number }>
}
/** Status of one thread and of its actors. */
export interface Thread extends Actor {
  /** Load of the thread. `null` until the thread has reported. */
  readonly health: { readonly loopDelayP99Ms: number; readonly heapUsedBytes: number } | null
  readonly actors: ReadonlyArray<Actor>
}
export interface Status {
  readonly peers: ReadonlyArray<Peer>
  /** Connected nodes. Absent unless the process is a relay. */
  readonly nodes?: ReadonlyArray<unknown>
}
export interface NetworkNode {
  readonly name: string
  readonly role: string
  /** When the node connected. `null` if it is not connected. */
  readonly since: number | null
  readonly report: {
    readonly version: string
    readonly runtime: string
    readonly platform: string
    readonly peersInAll: number
    readonly peers: ReadonlyArray<
      Pick<Peer, "name" | "reason" | "rttMs"> & { readonly path: string; readonly pathAgeSeconds: number | null }
    >
    readonly flows: Readonly<Record<string, number>>
  } | null
}
export interface NetworkSample {
  readonly at: number
  readonly direct: number
  readonly total: number
}
export interface Finding {
  readonly severity: "broken" | "poor"
  readonly what: string
  readonly remedy: string
}
/** A decision about the path of a session. */
export interface PathEntry {
  readonly _tag: "Path"
  readonly at: number
  readonly peer: string
  readonly path: string
  readonly reason: string
  readonly moved: boolean
}
/** A change of the state of a thread or an actor. */
export interface StateEntry {
  readonly _tag: "State"
  readonly at: number
  readonly kind: string
  readonly name: string
  readonly state: string
  readonly message: string | null
}
export type Entry = PathEntry | StateEntry
export interface Span {
  readonly spanId: string
  readonly parentSpanId: string | null
  readonly name: string
  readonly thread: string
  readonly startMs: number
  /** Duration in ms. */
  readonly durationMs: number
  readonly status: "open" | "ok" | "error"
  readonly attributes: Readonly<Record<string, string | number | boolean>>
}
export interface Trace {
  readonly traceId: string
  readonly startMs: number
  readonly durationMs: number
  readonly spans: ReadonlyArray<Span>
}

/** Asks the admin API. Rejects with a message for the reader. */
export const get = <A>(path: string): Promise<A> => ask<A>(path, 5000)

/**
 * Asks the admin API for an answer that takes long, by POST. Rejects with a message for the reader.
 */
export const post = <A>(path: string, body: unknown): Promise<A> =>
  ask<A>(path, 10_000, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })

const ask = async <A>(path: string, withinMs: number, request: RequestInit = {}): Promise<A> => {
  const response = await fetch(path, { ...request, signal: AbortSignal.timeout(withinMs) })
  const answer = await response.json() as { readonly error?: { readonly message: string } }
  if (!response.ok) throw new Error(answer.error?.message ?? `${path} answered ${response.status}`)
  return answer as A
}
