/**
 * Passes relayed frames between the data plane, which runs in another thread, and the WebRTC
 * connections of this process. It is a UDP socket on loopback, which the data plane treats as one
 * more relay. Frames belong to sessions by their tags, which only the session's own threads know.
 */
import { createSocket, type Socket } from "node:dgram"
import { once } from "node:events"
import * as Frame from "../../protocol/bytes/Frame.ts"
import type { SocketAddr } from "../../protocol/bytes/SocketAddr.ts"

const LOOPBACK = "127.0.0.1"
const BUFFER_BYTES = 4 * 1024 * 1024

/** A session whose frames travel over WebRTC. */
export interface Session {
  /** Tag of the frames that this node sends. `receiveTag` is the tag of the peer's frames. */
  readonly sendTag: number
  readonly receiveTag: number
  /** Sends a frame of this node to the peer. */
  readonly send: (frame: Uint8Array) => unknown
}

/** The loopback socket between the data plane and the WebRTC connections. */
export class LocalLeg {
  readonly #socket: Socket
  readonly #byTag = new Map<number, Session>()
  /**
   * Address of the data plane: the source of the last frame with a known tag. `null` before the
   * first one.
   */
  #plane: SocketAddr | null = null
  /** Number of frames that were dropped because their tag is not known, from either side. */
  strays = 0

  constructor() {
    this.#socket = createSocket({ type: "udp4", recvBufferSize: BUFFER_BYTES, sendBufferSize: BUFFER_BYTES })
    this.#socket.on("message", (bytes, from) => this.#onDatagram(bytes, { host: from.address, port: from.port }))
    this.#socket.on("error", () => undefined) // a send failed; the data plane notices the loss
  }

  /** Binds the socket and returns its address. */
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

  /** Gives a frame of the session's peer to the data plane. */
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

/** Whether `bytes` is exactly one relayed frame with a body. */
const isFrame = (bytes: Uint8Array): boolean =>
  bytes.length > Frame.RELAYED_HEAD_BYTES && (bytes[0]! & 0xf0) === 0x20 && Frame.lengthAt(bytes, 0) === bytes.length
