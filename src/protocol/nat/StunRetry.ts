/**
 * Timing of one STUN request over UDP: when it is sent again, and when it has failed (RFC 8489,
 * section 6.2.1). Times are in ms, monotonic.
 */

export type Schedule = {
  /** First gap between sends. Each later gap is twice the one before it. */
  readonly initialMs: number
  /** Number of times that the request is sent ("Rc" in the RFC). */
  readonly sends: number
  /** Time from the last send until the request has failed. */
  readonly lastWaitMs: number
}

/** Schedule of RFC 8489. It is patient (39.5 s), for servers that are not our own. */
export const RFC8489: Schedule = { initialMs: 500, sends: 7, lastWaitMs: 16 * 500 }

/**
 * Schedule for our own servers: sends at 0, 100, 300 and 700 ms, failed at 1.5 s. A user waits for
 * the answer after each change of network. 100 ms is above most round trips, and 800 ms after the
 * last send is above nearly all.
 */
export const FAST: Schedule = { initialMs: 100, sends: 4, lastWaitMs: 800 }

/** State of one request. Nothing is due before `deadline`. */
export type State = { readonly schedule: Schedule; readonly sends: number; readonly deadline: number }
/** Next action for a request: send it now, wait until `deadline`, or give up. */
export type Step =
  | { readonly _tag: "Send" | "Wait"; readonly state: State }
  | { readonly _tag: "TimedOut"; readonly sends: number }

/** Starts a request, with a first send at once. */
export const start = (now: number, schedule: Schedule = RFC8489): Step => send(schedule, 0, now)

/**
 * Advances a request. It may be called late or too often: an early call only waits, and a late one
 * sends once.
 */
export const onTick = (state: State, now: number): Step => {
  if (now < state.deadline) return { _tag: "Wait", state }
  return state.sends >= state.schedule.sends
    ? { _tag: "TimedOut", sends: state.sends }
    : send(state.schedule, state.sends, now)
}

const send = (schedule: Schedule, sentBefore: number, now: number): Step => {
  const sends = sentBefore + 1
  const gap = sends >= schedule.sends ? schedule.lastWaitMs : 2 ** sentBefore * schedule.initialMs
  return { _tag: "Send", state: { schedule, sends, deadline: now + gap } }
}
