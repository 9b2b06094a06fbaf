/**
 * Reads an enrolled node's identity and its trusted relay from the state directory. Each thread
 * reads them for its own actors.
 */
import { Effect, Option, Schema } from "effect"
import { type Enrolled, ENROLMENT_FILE, make as makeEnrolment } from "./Enrolment.ts"
import { loadIdentity, type NodeIdentity } from "./Keys.ts"

/**
 * Error when the state directory holds no enrolment. The process must enrol the node before it
 * starts its actors.
 */
export class NotEnrolled extends Schema.TaggedError<NotEnrolled>()("NotEnrolled", { message: Schema.String }) {}

/** An enrolled node: what enrolment stored, and the key that identifies the node. */
export interface NodeState extends Enrolled {
  /** The node's key and what it signs. */
  readonly identity: typeof NodeIdentity.Service
}

/**
 * Reads the identity and the enrolment from `stateDir`. Fails with {@link NotEnrolled} if there is
 * no enrolment.
 */
export const load = Effect.fnUntraced(function*(stateDir: string) {
  const identity = yield* loadIdentity(stateDir)
  const enrolled = yield* makeEnrolment(stateDir).load(identity.key)
  if (Option.isNone(enrolled)) {
    return yield* new NotEnrolled({
      message: `${stateDir}/${ENROLMENT_FILE} is missing; give the node a token and start it again`
    })
  }
  return { ...enrolled.value, identity } satisfies NodeState
})
