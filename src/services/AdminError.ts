/** What a route of the admin API answers when it cannot do what was asked. */
import { Schema } from "effect"

/** The HTTP status that each code travels as. */
export const STATUS = {
  bad_request: 400,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  too_large: 413,
  unsupported_media_type: 415,
  internal: 500,
  unavailable: 503,
  timed_out: 504
} as const

export const AdminCode = Schema.Literal(...Object.keys(STATUS) as Array<keyof typeof STATUS>)
export type AdminCode = typeof AdminCode.Type

/** `message` is shown to the operator as it is. */
export class AdminError extends Schema.TaggedError<AdminError>()("AdminError", {
  code: AdminCode,
  message: Schema.String
}) {}
