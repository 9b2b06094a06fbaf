/**
 * Loads the native binding of the QUIC library, once for each thread.
 *
 * The binding (napi-rs 2.10) keeps one thread-safe function for the whole process, which releases
 * references to buffers. Each thread that loads the file replaces it. If three threads load the
 * same file, the references of one are released on another one's heap, and the process crashes.
 * After a thread has ended, the binding releases nothing any more, and the process grows with each
 * packet. Therefore only the first thread loads the installed file. Every further thread loads a
 * copy, which has variables of its own.
 */
import type binding from "@infisical/quic/dist/native/index.js"
import { copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { constants, tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { getEnvironmentData, isMainThread, setEnvironmentData } from "node:worker_threads"

/** Everything that the native binding exports. */
export type Native = typeof binding

const require = createRequire(import.meta.url)

/** Name under which the threads of a process share their counter. */
const COUNTER = "sallyport: threads that have loaded the QUIC library"
/**
 * Flag of `dlopen` that keeps a library in memory after its thread has ended. BoringSSL has
 * registered functions that the C library calls at the very end of the thread.
 */
const RTLD_NODELETE = 0x1000

/**
 * Lets the worker threads that this thread starts from now on share one counter with it. Call it
 * before any of them is started.
 */
export const share = (): void => void counter()

/** How many threads of this process have loaded the binding. */
const counter = (): Int32Array => {
  const known = getEnvironmentData(COUNTER) as unknown as SharedArrayBuffer | undefined
  if (known !== undefined) return new Int32Array(known)
  const shared = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)
  const made = new Int32Array(shared)
  if (!isMainThread) made[0] = 1 // a thread of another program, which may have more of them
  setEnvironmentData(COUNTER, shared)
  return made
}

/**
 * Loads a library from a copy of its file, and removes the copy. The library stays in memory. Tries
 * several directories, because some hosts forbid to run programs from the temporary one.
 */
const fromCopy = (file: string, load: (copy: string) => void): void => {
  const failures: Array<string> = []
  for (const parent of [tmpdir(), dirname(file), "/dev/shm"]) {
    let dir: string | null = null
    try {
      dir = mkdtempSync(join(parent, "sallyport-quic-"))
      const copy = join(dir, "quic.node")
      copyFileSync(file, copy)
      return load(copy)
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error))
    } finally {
      if (dir !== null) rmSync(dir, { recursive: true, force: true })
    }
  }
  throw new Error(
    "a further thread cannot load the QUIC library; set TMPDIR to a directory that is writable and allows to run " +
      `programs (no noexec): ${failures.join("; ")}`
  )
}

const load = (): Native => {
  const dlopen = Reflect.get(process, "dlopen")
  const flags = process.platform === "linux" ? constants.dlopen.RTLD_LAZY | RTLD_NODELETE : constants.dlopen.RTLD_LAZY
  const isFirst = Atomics.add(counter(), 0, 1) === 0
  process.dlopen = (module: object, file: string): void => {
    const open = (path: string) => dlopen.call(process, module, path, flags)
    if (isFirst) open(file)
    else fromCopy(file, open)
  }
  try {
    return require("@infisical/quic/dist/native/index.js") as Native
  } finally {
    process.dlopen = dlopen
  }
}

let loaded: Native | undefined
/**
 * Returns the binding of this thread. The first call loads it, and throws if it cannot be loaded.
 */
export const native = (): Native => loaded ??= load()
