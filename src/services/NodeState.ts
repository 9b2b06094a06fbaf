/** An enrolled node's identity and whom it trusts, as its actors need them: each thread reads them from the state directory. */
import { Effect, Option, Schema } from "effect"
import { type Enrolled, ENROLMENT_FILE, make as makeEnrolment } from "./Enrolment.ts"
import { layerNodeIdentity, NodeIdentity } from "./Keys.ts"

/** The state directory holds no enrolment, which the process must have made before its actors start. */
export class NotEnrolled extends Schema.TaggedError<NotEnrolled>()("NotEnrolled", { message: Schema.String }) {}

export interface NodeState extends Enrolled {
  readonly identity: typeof NodeIdentity.Service
}

export const load = Effect.fnUntraced(function*(stateDir: string) {
  const identity = yield* Effect.provide(NodeIdentity, layerNodeIdentity({ stateDir }))
  const enrolled = yield* makeEnrolment(stateDir).load(identity.key)
  if (Option.isNone(enrolled)) {
    return yield* new NotEnrolled({
      message: `${stateDir}/${ENROLMENT_FILE} is missing; give the node a token and start it again`
    })
  }
  return { ...enrolled.value, identity } satisfies NodeState
})
