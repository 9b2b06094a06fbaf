/**
 * Shows from outside whether a thread makes progress. The thread's event loop counts its turns in
 * shared memory, and the system tells how much processor time the thread got. This file imports
 * only Node's own modules, because a thread begins with it.
 */
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs"
import { isMainThread, workerData } from "node:worker_threads"
import type { Reading } from "./Liveness.ts"

/** Progress of one thread, readable from another one. */
export interface Pulse {
  /** Reads the progress now. Never throws and never waits. */
  readonly read: () => Reading
  readonly close: () => void
}

/** Progress of a worker thread of this process. */
export interface WorkerPulse extends Pulse {
  /**
   * Calls `start`, which starts a worker thread, and finds out which of this process's threads that
   * is. The new thread cannot yet report it itself.
   */
  readonly starting: <A>(start: () => A) => A
}

/**
 * Slots of the shared memory. `TID` holds the system's id of the thread, 0 until it is known.
 * `BEATS` counts the beats.
 */
const TID = 0
const BEATS = 1
/** Size of the shared memory, in bytes. */
export const SHARED_BYTES = 8
/**
 * Time between two beats. It is shorter than the time between two readings, so that each reading of
 * a healthy thread shows a beat.
 */
const BEAT_MS = 200

/**
 * Unit of processor times in `/proc/PID/stat`. `USER_HZ` is 100 on every architecture that Node
 * supports.
 */
const TICK_MS = 10

let isBeating = false

/**
 * Starts the beats of this worker thread. Call it as early as possible. Does nothing in the main
 * thread of a process.
 */
export const begin = (): void => {
  const shared: unknown = isMainThread ? undefined : (workerData as { readonly pulse?: unknown } | null)?.pulse
  if (isBeating || !(shared instanceof SharedArrayBuffer)) return
  isBeating = true
  const slots = new Int32Array(shared)
  Atomics.store(slots, TID, ownTid())
  // oxlint-disable-next-line no-restricted-globals -- must beat without an Effect runtime
  setInterval(() => Atomics.add(slots, BEATS, 1), BEAT_MS).unref()
}

/**
 * Returns the pulse of a worker thread that was given `shared` as the `pulse` of its `workerData`.
 */
export const ofWorker = (shared: SharedArrayBuffer): WorkerPulse => {
  const slots = new Int32Array(shared)
  const beats = () => Atomics.load(slots, BEATS)
  if (process.platform !== "linux") {
    return { read: () => ofProcess(beats()), close: () => undefined, starting: (start) => start() }
  }
  const pulse = ofTask(() => {
    const tid = Atomics.load(slots, TID)
    return tid === 0 ? null : `/proc/self/task/${tid}`
  }, beats)
  const starting = <A>(start: () => A): A => {
    const before = tasks()
    const started = start()
    const added = tasks().filter((tid) => !before.includes(tid))
    // If there are several new threads, the thread says later which one it is.
    if (added.length === 1) Atomics.compareExchange(slots, TID, 0, Number(added[0]))
    return started
  }
  return { ...pulse, starting }
}

/**
 * Returns the pulse of the main thread of a child process. `beats` counts the messages that came
 * from it.
 */
export const ofChild = (pid: number | undefined, beats: () => number): Pulse =>
  ofTask(() => (pid === undefined || process.platform !== "linux" ? null : `/proc/${pid}/task/${pid}`), beats)

/** Pulse of something that shares its thread with the supervisor. */
export const NONE: Pulse = {
  read: () => ({ beats: 0, cpuMs: null, waitedMs: 0, isAsleep: true }),
  close: () => undefined
}

/** Lists the threads of this process by the system's ids. Empty if they cannot be listed. */
const tasks = (): ReadonlyArray<string> => {
  try {
    return readdirSync("/proc/self/task")
  } catch {
    return []
  }
}

/**
 * Returns the system's id of this thread, or 0 if the system does not tell (anything but Linux).
 */
const ownTid = (): number => {
  try {
    return Number(readlinkSync("/proc/thread-self").split("/").at(-1))
  } catch {
    return 0
  }
}

/**
 * Reads the whole process, where the system does not tell about one thread. A thread cannot have
 * run for longer than its process.
 */
const ofProcess = (beats: number): Reading => {
  const { system, user } = process.cpuUsage()
  return { beats, cpuMs: (system + user) / 1e3, waitedMs: 0, isAsleep: true }
}

/**
 * Returns a pulse that reads the thread in a directory of `/proc`. `directory` returns `null` while
 * it is not known.
 */
const ofTask = (directory: () => string | null, beats: () => number): Pulse => {
  let files: { readonly schedstat: number; readonly stat: number } | null = null
  const buffer = Buffer.alloc(1024)
  const text = (fd: number) => buffer.toString("latin1", 0, readSync(fd, buffer, 0, buffer.length, 0))
  return {
    read: () => {
      try {
        const path = directory()
        if (path === null) return { beats: beats(), cpuMs: null, waitedMs: 0, isAsleep: true }
        // The files stay open, so that a reading needs no descriptor when the process has run out
        // of them.
        files ??= open(path)
        const [ranNs, waitedNs] = text(files.schedstat).split(" ")
        const stat = text(files.stat)
        // The name before these fields may contain anything (see proc_pid_stat(5)).
        const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
        const [state, utime, stime] = [fields[0], fields[11], fields[12]]
        return {
          beats: beats(),
          // A kernel without scheduler statistics has zeros in the first file.
          cpuMs: Math.max(Number(ranNs) / 1e6, (Number(utime) + Number(stime)) * TICK_MS),
          waitedMs: Number(waitedNs) / 1e6,
          isAsleep: state !== "R" && state !== "D"
        }
      } catch {
        // The thread is gone.
        return { beats: beats(), cpuMs: null, waitedMs: 0, isAsleep: true }
      }
    },
    close: () => {
      if (files === null) return
      closeSync(files.schedstat)
      closeSync(files.stat)
      files = null
    }
  }
}

const open = (path: string) => {
  const schedstat = openSync(`${path}/schedstat`, "r")
  try {
    return { schedstat, stat: openSync(`${path}/stat`, "r") }
  } catch (error) {
    closeSync(schedstat)
    throw error
  }
}
