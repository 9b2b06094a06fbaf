/** Decides which actor runs on which thread. */
import { Either, Schema } from "effect"

/**
 * Actor names by thread name, with each actor on exactly one thread. "isolated" gives every actor a
 * thread of its own, named after the actor.
 */
export type Placement = "isolated" | Readonly<Record<string, ReadonlyArray<string>>>

/** The placement and the actors of a role do not fit together. */
export class BadPlacement extends Schema.TaggedError<BadPlacement>()("BadPlacement", { message: Schema.String }) {}

/** An actor to place, and the names of the actors that it uses. */
export interface Placed {
  readonly name: string
  readonly uses: ReadonlyArray<string>
}

/**
 * Resolves a placement to actor names by thread. Fails unless every actor is on exactly one thread,
 * every placed name is an actor, and every used actor is among the actors.
 */
export const resolve = (
  placement: Placement,
  actors: ReadonlyArray<Placed>
): Either.Either<ReadonlyMap<string, ReadonlyArray<string>>, BadPlacement> => {
  const names = actors.map(({ name }) => name)
  const threads = new Map<string, ReadonlyArray<string>>(
    placement === "isolated" ? names.map((name) => [name, [name]]) : Object.entries(placement)
  )
  const placed = [...threads.values()].flat()
  const bad = (message: string) => Either.left(new BadPlacement({ message }))
  for (const name of names) {
    const times = placed.filter((other) => other === name).length
    if (times !== 1) return bad(`actor ${name} is placed on ${times} threads; name it under exactly one`)
  }
  for (const name of placed) {
    if (!names.includes(name)) return bad(`there is no actor ${name} in this role; it has ${names.join(", ")}`)
  }
  for (const { name, uses } of actors) {
    const missing = uses.find((used) => !names.includes(used))
    if (missing !== undefined) return bad(`actor ${name} uses ${missing}, which this role does not start`)
  }
  return Either.right(threads)
}
