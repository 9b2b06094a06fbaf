/** `sallyport drain`: takes a connector out of service while it runs, and back. */
import { Console, Effect, Schedule, Schema } from "effect"
import * as Asker from "../Asker.ts"
import { failure, usage } from "../CliError.ts"
import type { Options } from "./Inspect.ts"

/**
 * Gap between two looks at the open flows. The first look comes late enough that all clients with a
 * working path have heard of the drain.
 */
const LOOK_EVERY = "1 second"
/** How often a look is repeated if the connector does not answer, for example during a reload. */
const LOOK_RETRIES = 3

const State = Schema.Struct({ draining: Schema.Boolean, sessions: Schema.Int, flows: Schema.Int })
type State = typeof State.Type

/**
 * Begins or cancels the drain of the running connector. After the begin it waits until no flow is
 * open, unless `noWait`. It cuts no flow. If it is interrupted, the connector keeps draining.
 */
export const drain = (options: Options & { readonly cancel: boolean; readonly noWait: boolean }) =>
  Effect.gen(function*() {
    const { cancel, config: file, json, noWait } = options
    const { config: { name, role }, get, post } = yield* Asker.make(file)
    if (role !== "connector") {
      return yield* usage(
        `${file} is the configuration of a ${role}; drain needs that of a connector, which alone serves flows`
      )
    }
    const tell = (text: string) => json ? Effect.void : Console.log(text)
    let state = yield* post("/v1/drain", { drain: !cancel }, State)
    if (cancel) yield* tell(`${name} takes new flows.`)
    else {
      yield* tell(`${name} takes no new flows until: sallyport drain --cancel --config ${file}`)
      yield* tell(openText(state))
      if (!noWait) state = yield* awaitEnd(state, get("/v1/drain", State), tell)
    }
    if (json) yield* Console.log(JSON.stringify(state))
  })

/** Waits until no flow is open. Fails if the drain is cancelled or the connector ends before. */
const awaitEnd = Effect.fnUntraced(function*<E extends { readonly message: string }>(
  first: State,
  look: Effect.Effect<State, E>,
  tell: (text: string) => Effect.Effect<void>
) {
  let state = first
  // A client that has not heard of the drain may still open a flow.
  while (state.sessions > 0) {
    yield* Effect.sleep(LOOK_EVERY)
    const { flows } = state
    state = yield* Effect.retry(look, { times: LOOK_RETRIES, schedule: Schedule.spaced(LOOK_EVERY) }).pipe(
      Effect.mapError(({ message }) =>
        failure(`the connector does not answer any more (before: ${openText({ flows })}): ${message}`)
      )
    )
    if (!state.draining) return yield* failure(`the drain was cancelled by another command (${openText(state)})`)
    if (state.flows !== flows) yield* tell(openText(state))
    if (state.flows === 0) break
  }
  return state
})

const openText = ({ flows }: Pick<State, "flows">): string =>
  flows === 0 ? "no flow is open" : flows === 1 ? "1 flow is open" : `${flows} flows are open`
