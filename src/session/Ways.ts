/**
 * Happy Eyeballs (after RFC 8305) over several ways to connect: the next one starts without waiting
 * for one that does not answer. It also runs in browsers.
 */

/** One way to open a connection. */
export interface Way<A> {
  readonly open: (signal: AbortSignal) => Promise<A>
  /** Closes what this way has opened after another one had already won. */
  readonly discard: (opened: A) => void
}

/**
 * Opens connections by several ways, takes the first one that succeeds, and gives up the others.
 * The first way starts at once. Each later one starts when the previous one has failed or has run
 * for `headStartMs`. If all fail, rejects with the error of the last way in the list.
 */
export const firstOf = <A>(ways: ReadonlyArray<Way<A>>, headStartMs: number, signal: AbortSignal): Promise<A> =>
  new Promise((resolve, reject) => {
    const controllers: Array<AbortController> = []
    let isOver = false
    let failed = 0
    let begun = 0
    let lastError: unknown = new Error("there is no way")
    let timer: ReturnType<typeof setTimeout> | undefined
    const finish = (winner: AbortController | null) => {
      isOver = true
      clearTimeout(timer)
      for (const other of controllers) if (other !== winner) other.abort()
      signal.removeEventListener("abort", onAbort)
    }
    const onAbort = () => {
      if (isOver) return
      finish(null)
      reject(new Error("given up"))
    }
    const begin = () => {
      clearTimeout(timer)
      const at = begun++
      const way = ways[at]
      if (way === undefined) return
      void attempt(at, way)
      if (begun < ways.length) timer = setTimeout(begin, headStartMs)
    }
    const attempt = async (at: number, way: Way<A>): Promise<void> => {
      const controller = new AbortController()
      controllers.push(controller)
      let opened: A
      try {
        opened = await way.open(controller.signal)
      } catch (error) {
        return onFailed(at, error)
      }
      if (isOver) return way.discard(opened)
      finish(controller)
      resolve(opened)
    }
    const onFailed = (at: number, error: unknown) => {
      if (isOver) return
      failed++
      if (at === ways.length - 1) lastError = error
      if (failed < ways.length) return at === begun - 1 ? begin() : undefined
      finish(null)
      reject(lastError)
    }
    if (signal.aborted) return onAbort()
    signal.addEventListener("abort", onAbort, { once: true })
    if (ways.length === 0) return reject(lastError)
    begin()
  })
