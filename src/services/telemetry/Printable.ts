/** Text that others chose, for a terminal: what would move the cursor, colour or reverse the line is shown as a dot. */
import { HashMap, type Logger } from "effect"

const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu
const DOT = "\u00b7"

/** On one line. */
export const text = (text: string): string => text.replace(UNPRINTABLE, DOT)

/** Of our own messages, stacks among them, the line ends stay. */
const message = (part: unknown): unknown => typeof part === "string" ? part.split("\n").map(text).join("\n") : part

/** A log entry as it may be shown. What peers, resources and applications said is in the annotations. */
export const entry = (options: Logger.Logger.Options<unknown>): Logger.Logger.Options<unknown> => ({
  ...options,
  message: Array.isArray(options.message) ? options.message.map(message) : message(options.message),
  annotations: HashMap.map(options.annotations, (value) => (typeof value === "string" ? text(value) : value))
})
