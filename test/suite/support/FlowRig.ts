/** Applications and a resource on loopback TCP, with two sessions over a MemoryWire between them: the whole way of a flow. */
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import net from "node:net"
import { type Verdict } from "../../../src/protocol/flow/FlowWire.ts"
import { accept, admit, reject, request } from "../../../src/session/FlowStart.ts"
import { dial } from "../../../src/transport/flow/Dialer.ts"
import { type FlowOutcome, pump } from "../../../src/transport/flow/FlowPump.ts"
import { ForwardServer } from "../../../src/transport/flow/ForwardServer.ts"
import { join, type Wire, type WireOptions } from "./MemoryWire.ts"

export interface Rig {
  readonly wire: Wire
  /** Where applications connect to. */
  readonly port: number
  readonly outcomes: { readonly client: Array<FlowOutcome>; readonly connector: Array<FlowOutcome> }
  readonly verdicts: Array<Verdict>
  readonly close: () => Promise<void>
}

export const start = async (
  onResource: (socket: net.Socket) => void,
  options: WireOptions & { readonly resourcePort?: number } = {}
): Promise<Rig> => {
  const outcomes: Rig["outcomes"] = { client: [], connector: [] }
  const verdicts: Array<Verdict> = []
  const resource = net.createServer({ allowHalfOpen: true }, onResource)
  resource.listen(0, "127.0.0.1", 1024)
  await once(resource, "listening")
  const resourcePort = options.resourcePort ?? (resource.address() as net.AddressInfo).port
  const wire = join({
    ...options,
    onStream: (stream) =>
      accept(
        stream,
        ({ open, rest }) =>
          void dial({ host: open.host, port: open.port, allowLoopback: true, client: "rig" }, (result) => {
            if (result._tag === "Failed") return reject(stream, result)
            pump({
              stream,
              socket: result.reader,
              fromStream: rest,
              fromSocket: admit(stream),
              onDone: (outcome) => outcomes.connector.push(outcome)
            })
          })
      )
  })
  await wire.established
  const door = new ForwardServer({
    listen: { host: "127.0.0.1", port: 0 },
    connect: ({ answer, gone, reader }) => {
      const target = { kind: "tcp", resource: "r", host: "127.0.0.1", port: resourcePort, traceparent: null } as const
      const giveUp = request(wire.client, target, (result) => {
        const verdict: Verdict = result._tag === "Accepted" ? { code: "accepted", reason: "" } : result.verdict
        verdicts.push(verdict)
        if (!answer(verdict)) {
          if (result._tag === "Accepted") result.stream.abort(1)
        } else if (result._tag === "Accepted") {
          const { rest, stream } = result
          pump({ stream, socket: reader, fromStream: rest, onDone: (outcome) => outcomes.client.push(outcome) })
        }
      })
      gone.addEventListener("abort", giveUp)
    }
  })
  const at = await door.start()
  return {
    wire,
    port: "port" in at ? at.port : 0,
    outcomes,
    verdicts,
    close: async () => {
      wire.close()
      await door.stop()
      resource.close()
    }
  }
}

/** Random bytes, the first ones again at the end, so that any piece of the endless repetition is one view. */
const PERIOD = 1_000_003
const LONGEST = 1 << 20
const noise = randomBytes(PERIOD)
const pattern = Buffer.concat([noise, noise, noise]).subarray(0, PERIOD + LONGEST)

/** Bytes `from` to `from + length` of flow `id`, in one direction; at most 1 MiB. Not to be changed. */
export const fill = (id: number, from: number, length: number): Buffer => {
  const at = (id * 7919 + from) % PERIOD
  return pattern.subarray(at, at + length)
}

/** Checks the bytes of one direction of a flow as they come. */
export class Checker {
  readonly id: number
  received = 0
  wrongAt = -1
  ended = false

  constructor(id: number) {
    this.id = id
  }

  push(bytes: Buffer): void {
    if (this.wrongAt < 0 && !bytes.equals(fill(this.id, this.received, bytes.length))) this.wrongAt = this.received
    this.received += bytes.length
  }

  end(): void {
    this.ended = true
  }
}

/** Writes `total` bytes of flow `id` as the socket takes them, then ends. */
export const send = (socket: net.Socket, id: number, total: number, at = 0): void => {
  const chunk = 32 * 1024
  let next = at
  const more = () => {
    while (next < total) {
      const bytes = fill(id, next, Math.min(chunk, total - next))
      next += bytes.length
      if (!socket.write(bytes)) return void socket.once("drain", more)
    }
    socket.end()
  }
  more()
}
