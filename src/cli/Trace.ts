/** What a running sallyport did for its last flows, step by step. */
import { Console, Effect } from "effect"
import { Traces } from "../services/telemetry/Traces.ts"
import * as Asker from "./Asker.ts"
import { failure, usage } from "./CliError.ts"
import type { Options } from "./Inspect.ts"
import * as TraceTable from "./TraceTable.ts"

const GAP = "1 second"
/** Of one second; more than that nobody reads. */
const FOLLOWED = 100

export const trace = ({ config, follow, id, json, last }: Options & {
  /** The beginning of a trace's id; null: any. */
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

/** Each trace when it has been still for a second, so that it is shown once and whole. Until it is interrupted. */
const following = (get: Asker.Asker["get"], json: boolean) => {
  const path = `/v1/traces?last=${FOLLOWED}`
  return Effect.gen(function*() {
    /** Of each trace that is still kept: how many spans it had, and whether it was shown. */
    let known = new Map(
      (yield* get(path, Traces)).traces.map((one) => [one.traceId, { spans: one.spans.length, shown: true }])
    )
    return yield* Effect.forever(Effect.gen(function*() {
      yield* Effect.sleep(GAP)
      const now: typeof known = new Map()
      for (const one of (yield* get(path, Traces)).traces.toReversed()) {
        const before = known.get(one.traceId)
        const isNew = before?.shown !== true && before?.spans === one.spans.length
        now.set(one.traceId, { spans: one.spans.length, shown: isNew || before?.shown === true })
        if (isNew) yield* Console.log(json ? JSON.stringify(one) : `${TraceTable.render(one, Asker.hasColours())}\n`)
      }
      known = now
    }))
  })
}
