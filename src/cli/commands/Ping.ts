/** `sallyport ping`: measures one round trip a second until the peer is reached directly. */
import { Console, Effect, Either, Schema } from "effect"
import { isDirect, PATH_KINDS, type PathKind } from "../../protocol/path/PathKind.ts"
import { Reason } from "../../protocol/path/PathRef.ts"
import { TEXT } from "../../services/telemetry/ReasonText.ts"
import * as Asker from "../Asker.ts"
import { failure } from "../CliError.ts"
import { colour } from "../show/Table.ts"
import type { Options } from "./Inspect.ts"

const GAP = "1 second"
const GREEN = 32
const YELLOW = 33

const Pong = Schema.Struct({
  peer: Schema.String,
  rttMs: Schema.Number,
  path: Schema.Literal(...PATH_KINDS),
  relay: Schema.NullOr(Schema.String),
  reason: Schema.String
})
type Pong = typeof Pong.Type

/** Pings `peer` up to `count` times. Fails if no ping was answered. */
export const ping = ({ config, count, json, peer }: Options & { readonly peer: string; readonly count: number }) =>
  Effect.gen(function*() {
    const { post } = yield* Asker.make(config)
    const answers: Array<Pong | { readonly error: string }> = []
    let path: PathKind | null = null
    while (answers.length < count && !isDirect(path)) {
      if (answers.length > 0) yield* Effect.sleep(GAP)
      const answer: Either.Either<Pong, { readonly message: string }> = yield* Effect.either(
        post("/v1/ping", { peer }, Pong)
      )
      answers.push(Either.match(answer, { onLeft: ({ message }) => ({ error: message }), onRight: (pong) => pong }))
      if (!json) yield* Console.log(Either.match(answer, { onLeft: ({ message }) => message, onRight: line }))
      path = Either.getOrNull(answer)?.path ?? path
    }
    if (json) yield* Console.log(JSON.stringify({ peer, answers }))
    if (!answers.some((answer) => "rttMs" in answer)) return yield* failure(`${peer} did not answer`)
  })

const isReason = Schema.is(Reason)

const line = ({ path, peer, reason, relay, rttMs }: Pong): string => {
  const by = relay === null ? path : `${path} ${relay}`
  const shown = colour(Asker.hasColours(), isDirect(path) ? GREEN : YELLOW, by)
  const why = isReason(reason) ? TEXT[reason] : reason
  return `${peer} answers after ${rttMs.toFixed(1)} ms by ${shown}${isDirect(path) ? "" : `: ${why}`}`
}
