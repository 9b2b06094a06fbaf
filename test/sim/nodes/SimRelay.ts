/** The relay of the simulation: the real forwarding server, at two ports of one address. */
import type { SocketAddr } from "../../../src/protocol/bytes/SocketAddr.ts"
import { type NodeKey, toBytes } from "../../../src/protocol/trust/NodeKey.ts"
import * as Crypto from "../../../src/services/host/Crypto.ts"
import { RelayServer } from "../../../src/transport/relay/RelayServer.ts"

export const HOST = "192.0.2.1"
export const PORTS: ReadonlyArray<number> = [3_478, 3_479]

export const start = (options: {
  readonly authorityKey: NodeKey
  /** Ms, monotonic. */
  readonly now: () => number
  readonly send: (port: number, to: SocketAddr, bytes: Uint8Array) => void
}): RelayServer => {
  const authority = toBytes(options.authorityKey)
  const server = new RelayServer({
    verify: {
      authority: (message, signature) => Crypto.verify(authority, message, signature),
      node: (key, message, signature) => Crypto.verify(toBytes(key), message, signature)
    },
    now: options.now,
    epochSeconds: () => Math.floor(Date.now() / 1000)
  })
  for (const [socket, port] of PORTS.entries()) {
    const send = (bytes: Uint8Array, offset: number, length: number, to: number, host: string) =>
      options.send(port, { host, port: to }, bytes.slice(offset, offset + length))
    const sendTrain = (bytes: Uint8Array, length: number, segment: number, to: number, host: string, offset = 0) => {
      for (let at = 0; at < length; at += segment) send(bytes, offset + at, Math.min(segment, length - at), to, host)
    }
    server.setPort(socket, { send, sendTrain })
    server.stun.setSocket(socket, { send }, { host: HOST, port }, { port: 1 - socket })
  }
  return server
}
