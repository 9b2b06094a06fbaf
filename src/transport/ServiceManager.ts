/**
 * Reports the state of the service to systemd by sd_notify(3): ready, reloading, stopping, and a
 * watchdog ping while it is healthy. Nothing is reported if `NOTIFY_SOCKET` is not set.
 */
import { Duration, Effect, Schedule, type Scope } from "effect"
import { endianness } from "node:os"
import * as Libc from "./udp/Libc.ts"

const AF_UNIX = 1
const ABSTRACT = "@"
/** Longest `sun_path` of unix(7), in bytes, with the NUL at its end. */
const MAX_PATH_BYTES = 108
/** Pings in each period of the watchdog, so that one may be late. */
const PINGS_PER_PERIOD = 3

/** Reports of this process to systemd. Each report is sent when its effect runs. */
export interface ServiceManager {
  readonly ready: Effect.Effect<void>
  readonly reloading: Effect.Effect<void>
  /** Reports the stop, and for how many seconds systemd is to wait for it at least. */
  readonly stopping: (seconds: number) => Effect.Effect<void>
  /**
   * Sends watchdog pings while `healthy` succeeds with `true`, if systemd asked for them. Stops
   * with the scope.
   */
  readonly watch: (healthy: Effect.Effect<boolean>) => Effect.Effect<void, never, Scope.Scope>
}

export type Env = Readonly<Record<string, string | undefined>>

/** Makes the reports from the environment that systemd gives the process. */
export const make = (env: Env): ServiceManager => {
  const path = env["NOTIFY_SOCKET"]
  const tell = (state: () => string) => path === undefined || path === "" ? Effect.void : send(path, state)
  const every = watchdogOf(env)
  return {
    ready: tell(() => "READY=1"),
    reloading: tell(() => `RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1_000n}`),
    stopping: (seconds) => tell(() => `STOPPING=1\nEXTEND_TIMEOUT_USEC=${seconds * 1_000_000}`),
    watch: (healthy) =>
      every === null ? Effect.void : Effect.whenEffect(tell(() => "WATCHDOG=1"), healthy).pipe(
        Effect.repeat(Schedule.spaced(every)),
        Effect.forkScoped,
        Effect.asVoid
      )
  }
}

/** Time between two pings. `null` if systemd wants none from this process. */
const watchdogOf = ({ WATCHDOG_PID: pid, WATCHDOG_USEC: usec }: Env): Duration.Duration | null => {
  const periodMs = Number(usec) / 1_000
  if (!(periodMs > 0) || (pid !== undefined && pid !== String(process.pid))) return null
  return Duration.millis(periodMs / PINGS_PER_PERIOD)
}

/**
 * Sends a state. Never fails, because the service can run without a service manager that listens.
 */
const send = (path: string, state: () => string): Effect.Effect<void> =>
  Effect.suspend(() => {
    const why = sendNow(path, Buffer.from(state()))
    return why === null ? Effect.void : Effect.logWarning(`systemd could not be notified: ${why}`)
  })

const sendNow = (path: string, bytes: Uint8Array): string | null => {
  const to = sockaddrOf(path)
  if (to === null) return "NOTIFY_SOCKET is neither a path nor an abstract name of a Unix socket"
  const libc = Libc.load()
  if ("unavailable" in libc) return libc.unavailable
  const fd = libc.socket(AF_UNIX)
  if (fd < 0) return `socket: errno ${libc.errno()}`
  const errno = libc.sendTo(fd, bytes, bytes.length, to)
  libc.close(fd)
  return errno === 0 ? null : `sendto: errno ${errno}`
}

/**
 * Builds a `struct sockaddr_un`. An abstract name has a NUL in front of it instead of after it.
 * `null` if `path` is not valid.
 */
const sockaddrOf = (path: string): Uint8Array | null => {
  const abstract = path.startsWith(ABSTRACT)
  const name = Buffer.from(abstract ? `\0${path.slice(1)}` : `${path}\0`)
  if ((!abstract && !path.startsWith("/")) || name.length > MAX_PATH_BYTES) return null
  return Buffer.concat([endianness() === "LE" ? Buffer.of(AF_UNIX, 0) : Buffer.of(0, AF_UNIX), name])
}
