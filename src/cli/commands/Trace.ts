/** `sallyport trace`: shows step by step what a running sallyport did for its last flows. */
import { Console, Effect } from "effect"
import { type Trace, Traces } from "../../services/telemetry/Traces.ts"
import * as Asker from "../Asker.ts"
import { failure, usage } from "../CliError.ts"
import * as TraceTable from "../TraceTable.ts"
import type { Options } from "./Inspect.ts"

/** Time between two polls of `--follow`. */
const GAP = "1 second"
/**
 * Traces to ask for in each poll of `--follow`. More flows than this in a second are too many to
 * read.
 */
const FOLLOWED = 100

/**
 * Prints the traces of the `last` flows, or those whose id begins with `id`. With `follow`, it
 * prints each new one as it happens.
 */
export const trace = ({ config, follow, id, json, last }: Options & {
  /** The beginning of a trace's id. `null` for any trace. */
  readonly id: string | null
  readonly last: number
  readonly follow: boolean
}) =>
  Effect.gen(function*() {
    if (id !== null && !/^[0-9a-f]{4,32}$/.test(id)) {
      return yield* usage(`${id} is no trace; give 4 to 32 hex digits of one that sallyport trace --last 20 shows`)
    }
    const { get } = yield* Asker.make(config)
    if (follow) return yield* following(get, json)
    const answer = yield* get(`/v1/traces?last=${last}${id === null ? "" : `&id=${id}`}`, Traces)
    if (json) return yield* Console.log(JSON.stringify(answer))
    if (answer.traces.length === 0) {
      return yield* id === null
        ? Console.log("No flow has been opened yet.")
        : failure(`nothing is kept of a trace ${id}; ${answer.dropped} spans have made room for newer ones`)
    }
    const shown = answer.traces.toReversed().map((one) => TraceTable.render(one, Asker.hasColours()))
    return yield* Console.log(shown.join("\n\n"))
  })

/**
 * Polls once a second and prints each trace that has not changed since the poll before. A trace is
 * printed again after more has happened in it, for example in a flow that stays open. Runs until it
 * is interrupted.
 */
const following = (get: Asker.Asker["get"], json: boolean) => {
  const path = `/v1/traces?last=${FOLLOWED}`
  return Effect.gen(function*() {
    /** The state of each trace at the last poll, and whether it was printed in that state. */
    let known = new Map((yield* get(path, Traces)).traces.map((one) => [one.traceId, { sum: sumOf(one), shown: true }]))
    return yield* Effect.forever(Effect.gen(function*() {
      yield* Effect.sleep(GAP)
      const now: typeof known = new Map()
      for (const one of (yield* get(path, Traces)).traces.toReversed()) {
        const sum = sumOf(one)
        const before = known.get(one.traceId)
        const isStill = before?.sum === sum
        const isNew = isStill && !before.shown
        now.set(one.traceId, { sum, shown: isStill })
        if (isNew) yield* Console.log(json ? JSON.stringify(one) : `${TraceTable.render(one, Asker.hasColours())}\n`)
      }
      known = now
    }))
  })
}

/** A summary of the trace that changes whenever a span begins or ends. */
const sumOf = ({ spans }: Trace): string => `${spans.length} ${spans.filter(({ status }) => status === "open").length}`
