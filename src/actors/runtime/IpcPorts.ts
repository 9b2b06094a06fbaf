/**
 * Many ports over the one channel that a process has to its child. A `MessagePort` cannot leave its process, so each one that a
 * message hands over becomes a numbered channel: its own process holds the port and carries what comes by it, both ways and in
 * order, to a port that the other process makes in its place. Both processes run this, the parent and the child.
 */
import { MessageChannel, MessagePort, type Transferable } from "node:worker_threads"
import type { Port } from "./Port.ts"

/** As `process.send` and `ChildProcess.send` have it, with `serialization: "advanced"`. */
export interface Ipc {
  /** Throws for what cannot be copied. `done`: it has left this process, or never will. */
  readonly send: (message: unknown, done: () => void) => void
}

export interface IpcPorts {
  /** Both processes give the same number to what is theirs from the start; those of ports handed over follow. */
  readonly open: (channel: number, port: Port) => void
  /** What came from the other process. */
  readonly onMessage: (message: unknown) => void
  /** The other process is gone: every port is closed. */
  readonly close: () => void
}

/** Of both processes' numbers: the child's are odd. */
const FIRST = { parent: 2, child: 1 } as const
/** Messages that wait because the other process does not read. Streams wait for their reader, so this is not reached by them. */
export const MAX_WAITING = 10_000

/** `onFailed`: nothing more can be carried, for this reason. Called at most once. */
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

  /** Takes the ports out of a request's payload, which are the only ones that actors hand over (`Port.PortSchema`). */
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
      const frame = received as Frame // made by `send` of the same program
      const port = ports.get(frame.channel)
      if (port === undefined) return // closed meanwhile
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

/** Where in a payload a port was. */
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
