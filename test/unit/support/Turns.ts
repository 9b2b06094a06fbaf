/** Turns of the real event loop, for tests whose time is virtual: files, promises and sockets need them. */
import { Effect } from "effect"

const aTurn = Effect.promise(() => new Promise((resolve) => void setImmediate(resolve)))
/** Lets work be done that takes no virtual time but turns of the event loop. */
export const someTurns = Effect.repeatN(aTurn, 20)
/** Waits for work that takes an unknown number of turns. */
export const turnsUntil = (done: () => boolean) =>
  Effect.iterate(done(), { while: (isDone) => !isDone, body: () => Effect.map(aTurn, done) })
