/**
 * Path choice and port guessing of one session together. What both want done is returned as one
 * list.
 */
import type * as PathMachine from "./PathMachine.ts"
import type * as PortGuess from "./PortGuess.ts"

/** An action that path choice or port guessing wants. */
export type Output = PathMachine.Output | PortGuess.Output

/**
 * Passes the path machine's state to port guessing and merges the outputs of both. `outputs` is
 * what the machine has just returned; after an input to `guess`, it is what `onTick` returns. Of
 * two `Wake`s, the earlier one is kept.
 */
export const follow = (
  machine: PathMachine.PathMachine,
  guess: PortGuess.PortGuess,
  outputs: ReadonlyArray<Output>,
  now: number
): ReadonlyArray<Output> => {
  const facts: PortGuess.Facts = {
    relayed: machine.path.kind === "relay",
    direct: machine.hasDirect,
    seeking: machine.isSeeking(now)
  }
  const wanted = guess.step(facts, now)
  const explained = guess.reason === machine.guess ? [] : machine.onGuess(guess.reason, now)
  let wakeAt: number | null = null
  const out: Array<Output> = []
  for (const output of [...outputs, ...wanted, ...explained]) {
    if (output._tag === "Wake") wakeAt = output.at
    else out.push(output)
  }
  const guessAt = guess.wakeAt()
  if (guessAt !== null) wakeAt = Math.min(wakeAt ?? Infinity, Math.max(guessAt, now + 1))
  out.push({ _tag: "Wake", at: wakeAt })
  return out
}
