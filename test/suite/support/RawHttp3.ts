/** A client of HTTP/3 that says on its streams whatever a test wants, as no client would. */
import { createSocket } from "node:dgram"
import { QuicDriver } from "../../../src/transport/http3/QuicDriver.ts"
import * as QuicheHttp3 from "../../../src/transport/http3/QuicheHttp3.ts"
import { type ConnectionFault, READ_NOTHING } from "../../../src/transport/quic/engine/QuicEngine.ts"

export interface RawHttp3 {
  /** Resolves once the handshake is over. */
  readonly established: Promise<void>
  /** What is said on a stream; ends it with `fin`. All at once, so at most a window of it. */
  readonly say: (stream: number, bytes: Uint8Array, fin?: boolean) => void
  readonly datagram: (bytes: Uint8Array) => boolean
  readonly reset: (stream: number) => void
  /** What came on a stream so far. */
  readonly heard: (stream: number) => Buffer
  /** Why the connection ended. */
  readonly closed: Promise<ConnectionFault | null>
  readonly isClosed: () => boolean
  readonly close: () => void
}

/** By way of `port` of loopback. */
export const open = (port: number): RawHttp3 => {
  const socket = createSocket("udp4")
  const quic = QuicheHttp3.connect(QuicheHttp3.clientConfig(null), "localhost")
  const heard = new Map<number, Array<Buffer>>()
  const scratch = Buffer.alloc(65_536)
  let onEstablished = () => {}
  let onClosed: (fault: ConnectionFault | null) => void = () => {}
  const established = new Promise<void>((resolve) => (onEstablished = resolve))
  const closed = new Promise<ConnectionFault | null>((resolve) => (onClosed = resolve))
  /** What was said while the stream had no room. */
  const unsent = new Map<number, Buffer>()
  const finished = new Set<number>()
  const flush = () => {
    for (const [stream, bytes] of unsent) {
      const rest = bytes.subarray(Math.max(0, quic.write(stream, bytes)))
      if (rest.length > 0) unsent.set(stream, rest)
      else {
        unsent.delete(stream)
        if (finished.delete(stream)) quic.finish(stream)
      }
    }
  }
  const driver = new QuicDriver({
    role: "client",
    quic,
    now: () => performance.now(),
    transmit: (_slot, buffer, length, segment) => {
      for (let at = 0; at < length; at += segment) {
        socket.send(Buffer.from(buffer.subarray(at, Math.min(length, at + segment))), port, "127.0.0.1", () => {})
      }
    },
    serve: () => {
      onEstablished()
      flush()
      for (const id of quic.readable()) {
        for (let got = quic.read(id, scratch); got !== READ_NOTHING; got = quic.read(id, scratch)) {
          if (got > 0) heard.set(id, [...heard.get(id) ?? [], Buffer.from(scratch.subarray(0, got))])
          if (got < 0 || quic.readFinished()) break
        }
      }
    },
    onClosed: (fault) => onClosed(fault),
    onGone: () => socket.close()
  })
  socket.on("message", (packet) => driver.receive(0, packet))
  driver.schedule()
  return {
    established,
    say: (stream, bytes, fin = false) => {
      unsent.set(stream, Buffer.concat([unsent.get(stream) ?? Buffer.alloc(0), bytes]))
      if (fin) finished.add(stream)
      flush()
      driver.schedule()
    },
    datagram: (bytes) => {
      const sent = quic.sendDatagram(bytes)
      driver.schedule()
      return sent
    },
    reset: (stream) => {
      quic.reset(stream, 0x10c)
      driver.schedule()
    },
    heard: (stream) => Buffer.concat(heard.get(stream) ?? []),
    closed,
    isClosed: () => driver.isClosed,
    close: () => driver.close(0x100, "")
  }
}
