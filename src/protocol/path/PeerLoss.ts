/**
 * Decides when a session is over because its peer is gone. Silence alone proves little: this host's
 * own network may be down, and flows must survive that. A silent session therefore asks the relay
 * whether the peer is connected there, and ends only when the answer leaves no hope. While the
 * relay cannot be asked, no session ends. Times are milliseconds, monotonic.
 */

/**
 * Silence before the relay is asked. Probes and acknowledgements are far more frequent than this.
 */
export const ASK_AFTER_MS = 3_000
/** Time between two questions. */
export const ASK_EVERY_MS = 2_000
/**
 * How long a silent peer must be missing at the relay. A node that roams, or whose relay link
 * broke, is back sooner: it reconnects at once, and once more within a second.
 */
export const ABSENT_MS = 4_000
/**
 * How long a peer may be silent although it is connected at the relay. Its packets would have
 * switched to the relay's TCP path by then, so its data plane has lost the session.
 */
export const CONNECTED_SILENT_MS = 30_000

/**
 * How long a peer may be silent if another connector serves what it served. Applications can
 * connect again there at once, so it helps them to learn soon that their flows are over. A node
 * that roams is back sooner.
 */
export const REPLACED_SILENT_MS = 6_000

/**
 * Answers of the relay to the question whether a peer is connected to it. `unknown`: the relay has
 * just started, so an absent peer may still come back.
 */
export const PRESENCES = ["connected", "absent", "unknown"] as const
/** Answer of the relay to the question whether a peer is connected to it. */
export type Presence = (typeof PRESENCES)[number]

/** State of one silent peer. */
export interface State {
  /** When the next question may be asked. */
  readonly askAt: number
  /** When the present run of `absent` answers began. `Infinity` if the last answer was another. */
  readonly absentSince: number
  /** Whether the last answer was `connected`. */
  readonly connected: boolean
}

/** Action to take: none, ask the relay, or end the session. */
export type Step = "wait" | "ask" | "absent" | "forgotten" | "replaced"

/** The client's circumstances, which the judgement of a silent peer depends on. */
export interface Here {
  /** Whether packets could come by the relay. */
  readonly canHear: boolean
  /** Whether a session with another connector works and permits the same target. */
  readonly isReplaced: boolean
}

/** State of a peer that has not been silent. */
export const start: State = { askAt: 0, absentSince: Infinity, connected: false }

/**
 * Decides what to do about a peer that has owed an answer for `silentMs` (0 if it owes none).
 * `absent`, `forgotten` and `replaced` end the session: the peer has left the relay, or it is there
 * and knows nothing of this session, or another connector answers instead.
 */
export const onTick = (state: State, now: number, silentMs: number, { canHear, isReplaced }: Here): [Step, State] => {
  if (silentMs < ASK_AFTER_MS) return ["wait", start]
  if (now - state.absentSince >= ABSENT_MS) return ["absent", state]
  if (isReplaced && canHear && silentMs >= REPLACED_SILENT_MS) return ["replaced", state]
  if (state.connected && canHear && silentMs >= CONNECTED_SILENT_MS) return ["forgotten", state]
  return now < state.askAt ? ["wait", state] : ["ask", { ...state, askAt: now + ASK_EVERY_MS }]
}

/**
 * Takes the relay's answer to a question. A question that failed is not reported here, because it
 * changes nothing.
 */
export const onPresence = (state: State, now: number, presence: Presence): State => ({
  ...state,
  absentSince: presence === "absent" ? Math.min(state.absentSince, now) : Infinity,
  connected: presence === "connected"
})
