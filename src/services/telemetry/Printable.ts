/**
 * Makes text from others safe for a terminal. Characters that move the cursor, change colours or
 * reverse the line become a dot.
 */
import { HashMap, type Logger } from "effect"

const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu
const DOT = "\u00b7"

/** Makes text printable on one line. */
export const text = (text: string): string => text.replace(UNPRINTABLE, DOT)

/**
 * Makes one of our own messages printable and keeps its line breaks, for example those of a stack
 * trace.
 */
const message = (part: unknown): unknown => typeof part === "string" ? part.split("\n").map(text).join("\n") : part

/**
 * Makes a log entry printable. Texts from peers, resources and applications are in its annotations.
 */
export const entry = (options: Logger.Logger.Options<unknown>): Logger.Logger.Options<unknown> => ({
  ...options,
  message: Array.isArray(options.message) ? options.message.map(message) : message(options.message),
  annotations: HashMap.map(options.annotations, (value) => (typeof value === "string" ? text(value) : value))
})
