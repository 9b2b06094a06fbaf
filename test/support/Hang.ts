/**
 * How long a test waits before it calls something a hang, milliseconds. It is no measure of speed: a busy machine may be slow,
 * and no test may fail for that. Shorter than a test's own time-out, so that the message says what was waited for.
 */
export const HANG_MS = 150_000
