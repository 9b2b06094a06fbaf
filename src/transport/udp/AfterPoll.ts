/** Waits until this thread has polled its sockets. */

/**
 * Turns of the event loop to wait. libuv polls the sockets between two runs of `setImmediate`
 * callbacks. One more turn allows for a poll that was under way.
 */
const TURNS = 3

/** Calls `done` once this thread has read what waits in its sockets now. */
export const afterPoll = (done: () => void, turns = TURNS): void => {
  setImmediate(() => turns <= 1 ? done() : afterPoll(done, turns - 1))
}
