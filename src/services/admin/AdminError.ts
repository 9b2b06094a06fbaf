/** The error answers of the admin API. */
import { Schema } from "effect"

/** HTTP status for each error code. */
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

/** Code of an admin API error, for programs. */
export const AdminCode = Schema.Literal(...Object.keys(STATUS) as Array<keyof typeof STATUS>)
export type AdminCode = typeof AdminCode.Type

/** Error when the admin API could not serve a request. The operator sees `message` as it is. */
export class AdminError extends Schema.TaggedError<AdminError>()("AdminError", {
  code: AdminCode,
  message: Schema.String
}) {}
