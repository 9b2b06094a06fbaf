/** When one STUN request over UDP is sent again, and when it has failed (RFC 8489, section 6.2.1). Times: ms, monotonic. */

export type Schedule = {
  /** The first gap between sends; each later gap is twice the one before it. */
  readonly initialMs: number
  /** Sends in all ("Rc"). */
  readonly sends: number
  /** From the last send until it has failed. */
  readonly lastWaitMs: number
}

/** RFC 8489's own: patient (39.5 s), for servers that are not ours. */
export const RFC8489: Schedule = { initialMs: 500, sends: 7, lastWaitMs: 16 * 500 }

/**
 * Ours: sends at 0, 100, 300 and 700 ms, failed at 1.5 s. A user waits on the answer after each roam; 100 ms is above
 * most round trips, and 800 ms after the last send is above nearly all.
 */
export const FAST: Schedule = { initialMs: 100, sends: 4, lastWaitMs: 800 }

/** Nothing is due before `deadline`. */
export type State = { readonly schedule: Schedule; readonly sends: number; readonly deadline: number }
export type Step =
  | { readonly _tag: "Send" | "Wait"; readonly state: State }
  | { readonly _tag: "TimedOut"; readonly sends: number }

export const start = (now: number, schedule: Schedule = RFC8489): Step => send(schedule, 0, now)

/** May be called late or too often: early it only waits, and late it sends once. */
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
