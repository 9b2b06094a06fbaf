/**
 * Child processes that end together with the thread that started them, however that thread or its
 * process ends.
 */
import { spawn } from "node:child_process"
import type { Duplex } from "node:stream"

/**
 * How a child process ended. `absent`: the command, or the shell that starts it, is not installed.
 */
export type How = "ended" | "absent"

/** Callbacks of a child process. */
export interface Options {
  readonly onOutput: (bytes: Buffer) => void
  /** Called once, when the child has ended. */
  readonly onEnd: (how: How) => void
}

/** Exit code of a shell for a command that does not exist. */
const NOT_FOUND = 127

/**
 * Shell script that starts the command and a watcher in the background, and ends.
 *
 * The watcher waits for the end of the pipe at descriptor 3. Node closes our end of it when the
 * thread ends, and the kernel does so when the process is killed. `kill 0` hits exactly these two,
 * because they are alone in their process group. Neither is a child of this process, which could
 * not reap the children of a thread that is gone.
 */
const SCRIPT =
  `command -v "$1" >/dev/null || exit ${NOT_FOUND}; { { read -r _ <&3; kill 0; } >/dev/null & exec "$@" 3<&-; } &`

/**
 * Starts a command (found by PATH) that ends together with this thread, and returns a function that
 * ends it. An ordinary child would outlive a killed thread or process, which runs no finalizer.
 */
export const start = (command: string, args: ReadonlyArray<string>, { onEnd, onOutput }: Options): () => void => {
  const shell = spawn("sh", ["-c", SCRIPT, "sh", command, ...args], {
    stdio: ["ignore", "pipe", "ignore", "pipe"],
    detached: true
  })
  // There are no pipes if the process could not be started for want of descriptors.
  const tie = shell.stdio[3] as Duplex | undefined
  tie?.on("error", () => {}) // the watcher may be gone
  const end = () => void tie?.destroy()
  let isOver = false
  const tell = (how: How) => {
    end()
    if (isOver) return
    isOver = true
    onEnd(how)
  }
  shell.once("error", (error) => tell("code" in error && error.code === "ENOENT" ? "absent" : "ended"))
  shell.once("exit", () => {
    const { exitCode, stdout } = shell
    if (exitCode === NOT_FOUND) tell("absent")
    else if (stdout === null || stdout.closed) tell("ended")
    else stdout.once("close", () => tell("ended"))
  })
  shell.stdout?.on("data", onOutput)
  return end
}
