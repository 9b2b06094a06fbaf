/** Repeats a question for as long as a page shows its answers. It runs outside of pages, too. */

/** Options of {@link poll}. */
export interface Options {
  /** Asks once. It must not reject. */
  readonly ask: () => Promise<void>
  /** Time between an answer and the next question, in milliseconds. */
  readonly everyMs: number
  /** Whether nobody sees the page now. Then the question is left out. */
  readonly isHidden: () => boolean
}

/** Asks at once and again after each answer. Returns a function that ends it. */
export const poll = ({ ask, everyMs, isHidden }: Options): () => void => {
  let timer: ReturnType<typeof setTimeout> | undefined
  let over = false
  const next = async () => {
    if (!isHidden()) await ask()
    if (!over) timer = setTimeout(() => void next(), everyMs)
  }
  void next()
  return () => {
    over = true
    clearTimeout(timer)
  }
}
