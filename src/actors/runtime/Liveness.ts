/**
 * Judges whether a thread that does not answer is dead or only slow. Time in which the thread waits for a processor does not
 * count, because the host owes it that time. Pure; all times are ms.
 */

/** Time between two readings. It is also the most that one reading may count as sleep, so that a late supervisor blames nobody. */
export const SAMPLE_MS = 500
/**
 * How many times longer than the limit for a running thread a sleeping one may take. A thread can sleep for long without a
 * fault of its own, for example when it waits for helper threads that get no processor.
 */
const PATIENCE = 6

/** What the system and the thread itself show at one moment. */
export interface Reading {
  /** Counts up while the thread's event loop turns. */
  readonly beats: number
  /** Processor time that the thread has used since it started; `null` if the system does not tell. */
  readonly cpuMs: number | null
  /** How long the thread has waited for a processor since it started. */
  readonly waitedMs: number
  /** Whether the thread sleeps, so that it neither runs nor waits for a processor or a disk. */
  readonly isAsleep: boolean
}

export interface State {
  readonly atMs: number
  readonly last: Reading
  /** How long the thread has run or slept in all. */
  readonly givenMs: number
  /** How long it has run, and slept, since its event loop last turned. */
  readonly ranMs: number
  readonly sleptMs: number
  /** How long it has run or slept since it last answered. */
  readonly silentMs: number
}

const NOTHING: Reading = { beats: 0, cpuMs: null, waitedMs: 0, isAsleep: false }

/** State for a thread that is started now. */
export const start = (now: number): State => ({
  atMs: now,
  last: NOTHING,
  givenMs: 0,
  ranMs: 0,
  sleptMs: 0,
  silentMs: 0
})

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

/** The thread answered a call of the supervisor. */
export const onAnswer = (state: State): State => ({ ...state, ranMs: 0, sleptMs: 0, silentMs: 0 })

/** Why the thread has to be ended; `null` while it may go on. `limitMs`: how long it may run without a turn of its event loop. */
export const verdict = ({ ranMs, silentMs, sleptMs }: State, limitMs: number): string | null => {
  const seconds = (ms: number) => `${Math.round(ms / 100) / 10} s`
  if (ranMs >= limitMs) return `its event loop hangs: it ran for ${seconds(ranMs)} without a turn`
  if (sleptMs >= limitMs * PATIENCE) return `its event loop hangs: it slept for ${seconds(sleptMs)} inside a call`
  if (silentMs >= limitMs * PATIENCE) return `its event loop turns, but it answered nothing for ${seconds(silentMs)}`
  return null
}

/** How the time since the last reading was spent. The rest of that time the thread waited for a processor or a disk. */
const spent = ({ atMs, last }: State, reading: Reading, now: number) => {
  const elapsedMs = Math.max(0, now - atMs)
  if (reading.cpuMs === null) return { ranMs: 0, sleptMs: Math.min(elapsedMs, SAMPLE_MS) }
  const ranMs = Math.min(elapsedMs, Math.max(0, reading.cpuMs - (last.cpuMs ?? 0)))
  const waitedMs = Math.max(0, reading.waitedMs - last.waitedMs)
  const restMs = reading.isAsleep ? elapsedMs - ranMs - waitedMs : 0
  return { ranMs, sleptMs: Math.min(SAMPLE_MS, Math.max(0, restMs)) }
}
