/** Polls the admin API while the page is visible. */
import { useEffect, useState } from "preact/hooks"
import { get } from "./Api.ts"
import { poll } from "./Poll.ts"

const EVERY_MS = 1000

/**
 * The last answer, and the problem if the last attempt failed. The answer before is kept beside a
 * problem.
 */
interface Asked<A> {
  readonly value: A | null
  readonly problem: string | null
}

export function usePolled<A>(path: string, onAnswer?: (answer: A) => void, everyMs = EVERY_MS): Asked<A> {
  const [asked, setAsked] = useState<Asked<A>>({ value: null, problem: null })
  useEffect(() => {
    const ask = async () => {
      try {
        const value = await get<A>(path)
        onAnswer?.(value)
        setAsked({ value, problem: null })
      } catch (error) {
        const problem = error instanceof Error ? error.message : String(error)
        setAsked(({ value }) => ({ value, problem }))
      }
    }
    return poll({ ask, everyMs, isHidden: () => document.hidden })
  }, [path])
  return asked
}
