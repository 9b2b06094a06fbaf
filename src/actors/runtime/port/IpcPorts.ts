/**
 * Carries many ports over the single channel between a process and its child. A `MessagePort`
 * cannot leave its process, so each port that a message hands over becomes a numbered channel. The
 * process that had the port keeps it, and forwards what arrives on it to a port that the other
 * process makes in its place. Both directions work, in order. The parent and the child both run
 * this.
 */
import { MessageChannel, MessagePort, type Transferable } from "node:worker_threads"
import type { Port } from "./Port.ts"

/**
 * The channel to the other process: `process.send` or `ChildProcess.send`, with `serialization:
 * "advanced"`.
 */
export interface Ipc {
  /**
   * Sends one message. Throws if it cannot be copied. Calls `done` when the message has left this
   * process, or never will.
   */
  readonly send: (message: unknown, done: () => void) => void
}

/** All ports of one channel between two processes. */
export interface IpcPorts {
  /**
   * Carries `port` as the given channel. Both processes use the same number for a port that exists
   * from the start. Ports that are handed over get numbers of their own.
   */
  readonly open: (channel: number, port: Port) => void
  /** Takes a message from the other process. */
  readonly onMessage: (message: unknown) => void
  /** Closes every port, because the other process is gone. */
  readonly close: () => void
}

/**
 * First channel number that each process gives to ports it hands over. The parent's numbers are
 * even and the child's are odd, so they never clash.
 */
const FIRST = { parent: 2, child: 1 } as const
/**
 * Most messages that may wait because the other process does not read. One more fails the channel.
 * Streams wait for their reader, so they do not reach this.
 */
export const MAX_WAITING = 10_000

/**
 * Makes one process's end. `onFailed` is called at most once, with the reason why nothing more can
 * be carried.
 */
export const make = (side: keyof typeof FIRST, ipc: Ipc, onFailed: (why: string) => void): IpcPorts => {
  const ports = new Map<number, Port>()
  let next: number = FIRST[side]
  let waiting = 0
  let isOver = false

  const fail = (why: string) => {
    if (isOver) return
    isOver = true
    onFailed(why)
  }
  const send = (frame: Frame) => {
    if (isOver) return
    if (++waiting > MAX_WAITING) return fail(`it has not read its last ${MAX_WAITING} messages`)
    try {
      ipc.send(frame, () => waiting--)
    } catch (error) {
      fail(`a message to it cannot be copied: ${String(error)}`)
    }
  }

  const open = (channel: number, port: Port) => {
    ports.set(channel, port)
    port.on("message", (message) => {
      const handed: Array<Handed> = []
      send({
        channel,
        message: withoutPorts(message, handed),
        ports: handed.map(({ at, channel }) => ({ at, channel }))
      })
      for (const { channel, port } of handed) open(channel, port)
    })
    port.on("close", () => {
      if (ports.delete(channel)) send({ channel, closed: true })
    })
  }

  /**
   * Takes the ports out of a request's payload. Actors hand over ports only there (see
   * `Port.PortSchema`).
   */
  const withoutPorts = (message: unknown, handed: Array<Handed>): unknown => {
    const payload = payloadOf(message)
    if (payload === null) return message
    for (const [at, value] of Object.entries(payload)) {
      if (!(value instanceof MessagePort)) continue
      payload[at] = null
      handed.push({ at, channel: next, port: value })
      next += 2
    }
    return message
  }

  const withPorts = (message: unknown, marks: ReadonlyArray<Mark>): ReadonlyArray<Transferable> => {
    const payload = payloadOf(message)
    if (payload === null) return []
    return marks.map(({ at, channel }) => {
      const { port1, port2 } = new MessageChannel()
      open(channel, port1)
      payload[at] = port2
      return port2
    })
  }

  return {
    open,
    onMessage: (received) => {
      // The same program sent this, by `send`.
      const frame = received as Frame
      const port = ports.get(frame.channel)
      if (port === undefined) return // closed in the meantime
      if ("closed" in frame) {
        ports.delete(frame.channel)
        return port.close()
      }
      const transfer = withPorts(frame.message, frame.ports)
      port.postMessage(frame.message, transfer)
    },
    close: () => {
      isOver = true
      for (const port of ports.values()) port.close()
      ports.clear()
    }
  }
}

type Frame =
  | { readonly channel: number; readonly message: unknown; readonly ports: ReadonlyArray<Mark> }
  | { readonly channel: number; readonly closed: true }

/** Place of a port in a payload, and the channel that replaces the port. */
interface Mark {
  readonly at: string
  readonly channel: number
}
interface Handed extends Mark {
  readonly port: MessagePort
}

const payloadOf = (message: unknown): Record<string, unknown> | null => {
  if (typeof message !== "object" || message === null || !("payload" in message)) return null
  const { payload } = message
  return typeof payload === "object" && payload !== null ? payload as Record<string, unknown> : null
}
