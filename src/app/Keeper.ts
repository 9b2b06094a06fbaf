/**
 * Keeps this browser's one connection to the relay. It reconnects automatically when the link is
 * lost. Of several tabs one holds the connection, because a relay has one link for each identity.
 */
import { connect, type ConnectFailed, type Connection } from "../browser/index.ts"

/** State of the page's connection to its relay. */
export type State =
  | { readonly _tag: "Connecting" }
  | { readonly _tag: "Connected"; readonly connection: Connection }
  /** The next attempt follows automatically after `seconds`. */
  | { readonly _tag: "Waiting"; readonly problem: string; readonly seconds: number }
  /** A person has to act, for example enter a token. `problem` is `null` at a first visit. */
  | { readonly _tag: "Stopped"; readonly problem: string | null }
  /** Another tab holds the connection. */
  | { readonly _tag: "Elsewhere" }

const LOCK = "sallyport-connection"
/** Wait before the first try to connect again. It doubles with each failure. */
const FIRST_WAIT_SECONDS = 1
/** Longest wait between two tries to connect. */
const LONGEST_WAIT_SECONDS = 30

/** Whether the relay that served this page has HTTP/3, which it says in the page. */
const hasHttp3 = () => document.querySelector<HTMLMetaElement>("meta[name=http3]")?.content === "yes"

export class Keeper {
  readonly #onState: (state: State) => void
  #connection: Connection | null = null
  /** Number of the present attempt. Each new one ends the one before. */
  #run = 0
  /** Whether this tab holds the connection. */
  #holds = false

  constructor(onState: (state: State) => void) {
    this.#onState = onState
  }

  /**
   * Connects. Without a token, it uses the identity that this browser used last. `takeOver`:
   * whether to take the connection over from another tab.
   */
  async start(token?: string, takeOver = false): Promise<void> {
    this.#leave()
    const run = ++this.#run
    this.#onState({ _tag: "Connecting" })
    try {
      const options = takeOver || this.#holds ? { steal: true } : { ifAvailable: true }
      await navigator.locks.request(LOCK, options, async (lock) => {
        if (lock === null) return this.#tell(run, { _tag: "Elsewhere" })
        this.#holds = true
        await this.#stay(run, token)
        if (run === this.#run) this.#holds = false
      })
    } catch {
      if (run !== this.#run) return // this tab itself took the lock again
      this.#holds = false
      this.#run += 1
      this.#leave()
      this.#onState({ _tag: "Elsewhere" }) // another tab took over
    }
  }

  #leave(): void {
    const connection = this.#connection
    this.#connection = null
    connection?.close().catch(() => undefined)
  }

  #tell(run: number, state: State): void {
    if (run === this.#run) this.#onState(state)
  }

  async #stay(run: number, token: string | undefined): Promise<void> {
    for (let wait = FIRST_WAIT_SECONDS; run === this.#run;) {
      this.#tell(run, { _tag: "Connecting" })
      try {
        const connection = await connect(token, { webTransport: hasHttp3() })
        token = undefined // the token is used up
        if (run !== this.#run) return await connection.close()
        this.#connection = connection
        this.#tell(run, { _tag: "Connected", connection })
        wait = FIRST_WAIT_SECONDS
        await this.#pause(run, await connection.closed, wait)
      } catch (error) {
        const { message, reason } = error as ConnectFailed
        if (reason === "not_enrolled") return this.#tell(run, { _tag: "Stopped", problem: null })
        if (reason !== "unreachable") return this.#tell(run, { _tag: "Stopped", problem: message })
        await this.#pause(run, message, wait)
        wait = Math.min(2 * wait, LONGEST_WAIT_SECONDS)
      }
    }
  }

  /**
   * Waits about `seconds`, somewhat more or less so that not all pages reconnect at once. It ends
   * early when the network is back.
   */
  async #pause(run: number, problem: string, seconds: number): Promise<void> {
    this.#tell(run, { _tag: "Waiting", problem, seconds })
    await new Promise<void>((over) => {
      const go = () => {
        clearTimeout(timer)
        removeEventListener("online", go)
        over()
      }
      const timer = setTimeout(go, seconds * (750 + 500 * Math.random()))
      addEventListener("online", go)
    })
  }
}
