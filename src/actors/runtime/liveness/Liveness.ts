/**
 * Judges whether a thread that does not answer is dead or only slow. Time in which the thread waits
 * for a processor does not count, because the host caused that delay. This module is pure. All
 * times are in ms.
 */

/**
 * Time between two readings. A single reading counts at most this much as sleep, so a supervisor
 * that is late itself does not blame the thread.
 */
export const SAMPLE_MS = 500
/**
 * Factor by which a sleeping thread may exceed the limit for a running one. A thread can sleep for
 * long without a fault of its own, for example while it waits for helper threads that get no
 * processor.
 */
const PATIENCE = 6

/** One reading of a thread, from the system and from the thread itself. */
export interface Reading {
  /** Counter that grows while the thread's event loop turns. */
  readonly beats: number
  /**
   * Processor time that the thread has used since it started. `null` if the system does not tell.
   */
  readonly cpuMs: number | null
  /** How long the thread has waited for a processor since it started. */
  readonly waitedMs: number
  /** Whether the thread sleeps, that is, neither runs nor waits for a processor or a disk. */
  readonly isAsleep: boolean
}

/** Times that a thread has spent running, sleeping and silent, up to its last reading. */
export interface State {
  readonly atMs: number
  readonly last: Reading
  /**
   * Processor time and sleep of the thread in total, in ms. Time in which it waited for a processor
   * does not count.
   */
  readonly givenMs: number
  /** How long the thread has run since its event loop last turned. */
  readonly ranMs: number
  /** How long the thread has slept since its event loop last turned. */
  readonly sleptMs: number
  /** How long the thread has run or slept since it last answered a call, in ms. */
  readonly silentMs: number
}

const NOTHING: Reading = { beats: 0, cpuMs: null, waitedMs: 0, isAsleep: false }

/** Returns the state for a thread that is started now. */
export const start = (now: number): State => ({
  atMs: now,
  last: NOTHING,
  givenMs: 0,
  ranMs: 0,
  sleptMs: 0,
  silentMs: 0
})

/** Counts the time since the last reading. */
export const onReading = (state: State, reading: Reading, now: number): State => {
  const { ranMs, sleptMs } = spent(state, reading, now)
  const turned = reading.beats !== state.last.beats
  return {
    atMs: now,
    last: reading,
    givenMs: state.givenMs + ranMs + sleptMs,
    ranMs: turned ? 0 : state.ranMs + ranMs,
    sleptMs: turned ? 0 : state.sleptMs + sleptMs,
    silentMs: state.silentMs + ranMs + sleptMs
  }
}

/** Notes that the thread answered a call of the supervisor. */
export const onAnswer = (state: State): State => ({ ...state, ranMs: 0, sleptMs: 0, silentMs: 0 })

/**
 * Returns why the thread must be ended, or `null` while it may go on. `limitMs` is how long it may
 * run without a turn of its event loop.
 */
export const verdict = ({ ranMs, silentMs, sleptMs }: State, limitMs: number): string | null => {
  const seconds = (ms: number) => `${Math.round(ms / 100) / 10} s`
  if (ranMs >= limitMs) return `its event loop hangs: it ran for ${seconds(ranMs)} without a turn`
  if (sleptMs >= limitMs * PATIENCE) return `its event loop hangs: it slept for ${seconds(sleptMs)} inside a call`
  if (silentMs >= limitMs * PATIENCE) return `its event loop turns, but it answered nothing for ${seconds(silentMs)}`
  return null
}

/**
 * Splits the time since the last reading into running and sleeping. In the rest of that time the
 * thread waited for a processor or a disk.
 */
const spent = ({ atMs, last }: State, reading: Reading, now: number) => {
  const elapsedMs = Math.max(0, now - atMs)
  if (reading.cpuMs === null) return { ranMs: 0, sleptMs: Math.min(elapsedMs, SAMPLE_MS) }
  const ranMs = Math.min(elapsedMs, Math.max(0, reading.cpuMs - (last.cpuMs ?? 0)))
  const waitedMs = Math.max(0, reading.waitedMs - last.waitedMs)
  const restMs = reading.isAsleep ? elapsedMs - ranMs - waitedMs : 0
  return { ranMs, sleptMs: Math.min(SAMPLE_MS, Math.max(0, restMs)) }
}
