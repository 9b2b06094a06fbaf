/** Which actor runs on which thread. */
import { Either, Schema } from "effect"

/** Actor names by thread name, each actor once; or every actor on a thread of its own, named after it. */
export type Placement = "isolated" | Readonly<Record<string, ReadonlyArray<string>>>

export class BadPlacement extends Schema.TaggedError<BadPlacement>()("BadPlacement", { message: Schema.String }) {}

export interface Placed {
  readonly name: string
  readonly uses: ReadonlyArray<string>
}

/** Actor names by thread; every actor is on exactly one, and whom it uses is there, too. */
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
