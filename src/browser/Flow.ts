/**
 * A flow as a page uses it: two byte streams that end independently. No bytes are read before the
 * page asks for them.
 */
import { FLOW_RESET, type FlowStream, READ_NOTHING, READ_RESET, WRITE_STOPPED } from "../session/FlowStream.ts"

/** A TCP connection to a resource. */
export interface Flow {
  /**
   * Bytes from the resource. The stream ends when the resource has sent everything, and fails with
   * a `TypeError` if the flow was reset. Cancelling it tells the resource to stop sending.
   */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>
  /** Bytes to the resource. Closing the stream ends this direction and leaves `readable` open. */
  readonly writable: WritableStream<Uint8Array>
  /** Resolves when both directions have ended. Never rejects. */
  readonly closed: Promise<void>
  /** Resets the flow in both directions. */
  readonly abort: () => void
}

const READ_BYTES = 64 * 1024

/**
 * Makes a page's flow from a stream that the connector has accepted. `rest` are the bytes that came
 * together with the verdict.
 */
export const make = (stream: FlowStream, rest: Uint8Array): Flow => {
  const { promise: closed, resolve } = deferred()
  let wantsRead: (() => void) | null = null
  let wantsWrite: (() => void) | null = null
  const settle = () => {
    if (stream.readOver && stream.writeOver) resolve()
  }
  const wake = () => {
    const [read, write] = [wantsRead, wantsWrite]
    wantsRead = null
    wantsWrite = null
    read?.()
    write?.()
    settle()
  }
  stream.handler = {
    onReadable: () => {
      const read = wantsRead
      wantsRead = null
      read?.()
    },
    onWritable: () => {
      const write = wantsWrite
      wantsWrite = null
      write?.()
    },
    onClosed: () => queueMicrotask(wake)
  }
  let isCut = false
  const cut = () => {
    isCut = true
    stream.abort(FLOW_RESET)
    queueMicrotask(wake)
  }

  const readable = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (controller) => {
      if (rest.length > 0) controller.enqueue(new Uint8Array(rest))
      if (stream.readOver) controller.close() // the end came together with the verdict
    },
    pull: async (controller) => {
      for (;;) {
        const into = new Uint8Array(READ_BYTES)
        const got = stream.read(into)
        if (got > 0) controller.enqueue(into.subarray(0, got))
        if (got === READ_RESET || (got === READ_NOTHING && stream.readOver)) {
          settle()
          throw new TypeError(isCut ? "the flow was aborted" : "the flow was reset")
        }
        if (stream.readOver) {
          controller.close()
          return settle()
        }
        if (got > 0) return
        await new Promise<void>((wanted) => {
          wantsRead = wanted
        })
      }
    },
    cancel: () => {
      stream.stop(FLOW_RESET)
      settle()
    }
  }, { highWaterMark: 0 })

  const writable = new WritableStream<Uint8Array>({
    write: async (bytes) => {
      for (let left = bytes; left.length > 0;) {
        const taken = stream.write(left)
        if (taken === WRITE_STOPPED) {
          settle()
          throw new TypeError("the flow was reset")
        }
        left = left.subarray(taken)
        if (left.length === 0) return
        await new Promise<void>((wanted) => {
          wantsWrite = wanted
        })
      }
    },
    close: () => {
      stream.finish()
      settle()
    },
    abort: () => {
      stream.reset(FLOW_RESET)
      settle()
    }
  })
  return { readable, writable, closed, abort: cut }
}

const deferred = () => {
  let resolve: () => void = () => undefined
  const promise = new Promise<void>((done) => {
    resolve = done
  })
  return { promise, resolve }
}
