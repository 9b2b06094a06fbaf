/**
 * The one thing that actors need from their placement: an ordered, two-way pipe of structured messages. A `MessagePort` is
 * one as it is; a child process's IPC channel can be made into one.
 */
import * as Transferable from "@effect/platform/Transferable"
import { Schema } from "effect"
import { MessagePort, type Transferable as TransferableValue } from "node:worker_threads"

/** `message`: in the order posted. `close`: once, when either side closed or the other side's thread ended. */
export interface Port {
  /** Throws when the message cannot be cloned. Does nothing once either side has closed. */
  postMessage(message: unknown, transfer?: ReadonlyArray<TransferableValue>): void
  /** `message`: in the order posted. `close`: once, when either side closed or the other side's thread ended. */
  on(event: "message" | "close", listener: (message: unknown) => void): unknown
  off(event: "message" | "close", listener: (message: unknown) => void): unknown
  close(): void
}

/** A port inside an RPC payload: it is moved, and the sender can no longer use it. */
export const PortSchema: Schema.Schema<MessagePort> = Transferable.schema(
  Schema.declare((value): value is MessagePort => value instanceof MessagePort),
  (port) => [port]
)
