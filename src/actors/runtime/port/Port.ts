/**
 * The only thing that actors need from their placement: an ordered, two-way pipe of structured
 * messages. A `MessagePort` is one as it is, and a child process's IPC channel can carry them.
 */
import * as Transferable from "@effect/platform/Transferable"
import { Schema } from "effect"
import { MessagePort, type Transferable as TransferableValue } from "node:worker_threads"

/** One end of a two-way pipe of messages. */
export interface Port {
  /** Posts a message. Throws if it cannot be cloned. Does nothing once either side has closed. */
  postMessage(message: unknown, transfer?: ReadonlyArray<TransferableValue>): void
  /**
   * Adds a listener. `message` is emitted in the order of posting. `close` is emitted once, when
   * either side has closed or the other side's thread has ended.
   */
  on(event: "message" | "close", listener: (message: unknown) => void): unknown
  off(event: "message" | "close", listener: (message: unknown) => void): unknown
  close(): void
}

/**
 * Schema of a port inside an RPC payload. The port is transferred, and the sender can no longer use
 * it.
 */
export const PortSchema: Schema.Schema<MessagePort> = Transferable.schema(
  Schema.declare((value): value is MessagePort => value instanceof MessagePort),
  (port) => [port]
)
