/**
 * Knowledge about the link to the relay: its state for people, how often it needs a keepalive, and
 * whether the next connection should trust the stored addresses of the relay's name.
 */
import { Effect } from "effect"
import { IdleCuts } from "../../protocol/relay/IdleCuts.ts"
import * as Metrics from "../../services/telemetry/Metrics.ts"
import type { LinkError } from "../../transport/link/LinkClient.ts"
import type { SignalingState } from "./SignalingRpcs.ts"

/** State of the link, without the time that another part knows. */
export type State = Omit<SignalingState, "clockAheadMs">

/** Options of {@link make}. */
export interface Options {
  /** Relay, as HOST:PORT. */
  readonly relay: string
  /** The proxy on the way, for people. `null` if there is none. */
  readonly proxy: string | null
}

/** Makes the condition of a node that connects for the first time. */
export const make = ({ proxy, relay }: Options) => {
  const idleCuts = new IdleCuts()
  const connects = new Metrics.Counts<string>()
  let state: State = {
    state: "connecting",
    carrier: null,
    relay,
    problem: "first connection under way",
    reason: null,
    proxy,
    connects: 0,
    keepaliveMs: null
  }
  let waitForDns = false

  return {
    get state(): State {
      return state
    },
    /** Time between two keepalives on the next link, in ms. */
    get gapMs(): number {
      return idleCuts.gapMs
    },
    /**
     * Whether the next connection waits for DNS instead of falling back to the last known addresses
     * after a moment. Every second try does, because the relay may have moved while the first name
     * server is dead.
     */
    get waitForDns(): boolean {
      return waitForDns
    },
    onUp: (carrier: NonNullable<State["carrier"]>): void => {
      state = { ...state, state: "up", carrier, problem: "", reason: null, connects: state.connects + 1 }
      connects.add(carrier)
    },
    /**
     * Notes that the link ended or failed. `error` is `null` if it did not fail: either side ended
     * it.
     */
    onDown: (problem: string, error: Pick<LinkError, "_tag" | "reason"> | { readonly _tag: string } | null): void => {
      const reason = error !== null && "reason" in error && error._tag === "LinkError" ? error.reason : null
      if (error !== null) waitForDns = (reason === "unreachable" || reason === "timed_out") && !waitForDns
      state = { ...state, state: reason === "handshake_refused" ? "refused" : "connecting", problem, reason }
    },
    /**
     * Handles a link that was cut after `idleMs` without traffic. If that shows an idle timeout on
     * the way, later links send keepalives more often.
     */
    onCut: (idleMs: number) =>
      Effect.suspend(() => {
        const found = idleCuts.onCut(idleMs)
        if (found === null) return Effect.void
        state = { ...state, keepaliveMs: found.gapMs }
        return Effect.logWarning(
          `something between this node and the relay closes connections that are idle for ${
            seconds(found.idleMs)
          }, so this node ` +
            `now sends a keepalive every ${
              seconds(found.gapMs)
            }; a load balancer in front of the relay should allow 60 s`
        )
      }),
    /** Forgets the idle timeout of the network before. */
    onNetworkChange: (): void => {
      idleCuts.onNetworkChange()
      state = { ...state, keepaliveMs: null }
    },
    metrics: (): ReadonlyArray<Metrics.Family> => [
      Metrics.counter(
        { name: "sallyport_signaling_connects", help: "Connections to the relay that were let in, by carrier." },
        connects.points("carrier")
      ),
      Metrics.gauge(
        { name: "sallyport_signaling_up", help: "1: there is a connection to the relay. 0: it is being sought." },
        [{ labels: {}, value: Number(state.state === "up") }]
      )
    ]
  } as const
}

/** The condition, as {@link make} returns it. */
export type LinkCondition = ReturnType<typeof make>

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`
