/**
 * Decides when a session is over because its peer is gone. Silence alone proves little: this host's
 * own network may be away, and flows are to live through that. So a silent session asks the relay
 * whether the peer is connected there, and ends only when that answer leaves no hope. While the
 * relay cannot be asked, nothing ends. Times are milliseconds, monotonic.
 */

/** Silence before the relay is asked. Probes and acknowledgements go on far more often than this. */
export const ASK_AFTER_MS = 3_000
/** Time between two questions. */
export const ASK_EVERY_MS = 2_000
/**
 * How long a silent peer must be missing at the relay. A node that roams, or whose relay link broke,
 * is back sooner: it dials again at once, and once more within a second.
 */
export const ABSENT_MS = 4_000
/**
 * How long a peer may be silent although the relay has it connected. Its packets would have found
 * the relay's TCP path by then, so its data plane has lost the session.
 */
export const CONNECTED_SILENT_MS = 30_000

/**
 * What the relay knows of a peer. `unknown`: the relay itself started only a moment ago, so a peer
 * that is not there yet may still come back.
 */
export const PRESENCES = ["connected", "absent", "unknown"] as const
export type Presence = (typeof PRESENCES)[number]

export interface State {
  /** When the next question may be asked. */
  readonly askAt: number
  /** Since when every answer was `absent`; `Infinity` if the last one was not. */
  readonly absentSince: number
  /** Whether the last answer was `connected`. */
  readonly connected: boolean
}

export type Step = "wait" | "ask" | "absent" | "forgotten"

export const start: State = { askAt: 0, absentSince: Infinity, connected: false }

/**
 * What to do about a peer that has owed an answer for `silentMs`; 0 if it owes none. `canHear` is
 * whether packets could come by the relay. `absent` and `forgotten` end the session: the peer left
 * the relay, or it is there and knows nothing of this session.
 */
export const onTick = (state: State, now: number, silentMs: number, canHear: boolean): [Step, State] => {
  if (silentMs < ASK_AFTER_MS) return ["wait", start]
  if (now - state.absentSince >= ABSENT_MS) return ["absent", state]
  if (state.connected && canHear && silentMs >= CONNECTED_SILENT_MS) return ["forgotten", state]
  return now < state.askAt ? ["wait", state] : ["ask", { ...state, askAt: now + ASK_EVERY_MS }]
}

/** The relay's answer to a question. An answer that failed is not told here; it changes nothing. */
export const onPresence = (state: State, now: number, presence: Presence): State => ({
  ...state,
  absentSince: presence === "absent" ? Math.min(state.absentSince, now) : Infinity,
  connected: presence === "connected"
})
