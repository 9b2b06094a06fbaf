/**
 * Where the data plane, in another thread, hands relayed frames to the WebRTC connections of this process, and gets theirs: a UDP
 * socket on loopback, to which this is one more relay. Frames are told apart by their tags, which only the session's own threads know.
 */
import { createSocket, type Socket } from "node:dgram"
import { once } from "node:events"
import * as Frame from "../../protocol/Frame.ts"
import type { SocketAddr } from "../../protocol/SocketAddr.ts"

const LOOPBACK = "127.0.0.1"
const BUFFER_BYTES = 4 * 1024 * 1024

export interface Session {
  /** This node's own frames bear the first, the peer's the second. */
  readonly sendTag: number
  readonly receiveTag: number
  /** Takes a frame of this node's. */
  readonly send: (frame: Uint8Array) => unknown
}

export class LocalLeg {
  readonly #socket: Socket
  readonly #byTag = new Map<number, Session>()
  /** Of the data plane: where the last frame under a known tag came from. */
  #plane: SocketAddr | null = null
  /** Frames under no known tag, of either side. */
  strays = 0

  constructor() {
    this.#socket = createSocket({ type: "udp4", recvBufferSize: BUFFER_BYTES, sendBufferSize: BUFFER_BYTES })
    this.#socket.on("message", (bytes, from) => this.#onDatagram(bytes, { host: from.address, port: from.port }))
    this.#socket.on("error", () => undefined) // of a send; the data plane sees what is missing
  }

  async bind(): Promise<SocketAddr> {
    this.#socket.bind(0, LOOPBACK)
    await once(this.#socket, "listening")
    return { host: LOOPBACK, port: this.#socket.address().port }
  }

  add(session: Session): void {
    this.#byTag.set(session.sendTag, session)
  }
  remove({ sendTag }: Session): void {
    this.#byTag.delete(sendTag)
  }

  /** A frame that the peer of this session has sent. */
  deliver({ receiveTag }: Session, frame: Uint8Array): void {
    if (this.#plane === null || !isFrame(frame) || Frame.tagAt(frame, 0) !== receiveTag) return void this.strays++
    this.#socket.send(frame, this.#plane.port, this.#plane.host)
  }

  close(): void {
    this.#socket.close()
  }

  #onDatagram(bytes: Buffer, from: SocketAddr): void {
    const session = isFrame(bytes) ? this.#byTag.get(Frame.tagAt(bytes, 0)) : undefined
    if (session === undefined) return void this.strays++
    this.#plane = from
    session.send(bytes)
  }
}

/** One whole relayed frame and nothing else. */
const isFrame = (bytes: Uint8Array): boolean =>
  bytes.length > Frame.RELAYED_HEAD_BYTES && (bytes[0]! & 0xf0) === 0x20 && Frame.lengthAt(bytes, 0) === bytes.length
