/** A relay beside the one of the directory: what nodes are told of it, and how a list of them is read. */
import { Schema } from "effect"
import { Name } from "./Documents.ts"
import * as IpBytes from "./IpBytes.ts"

/** Of one network, beside the relay of the directory. */
export const MAX_RELAYS = 7
/** Of one relay. */
export const MAX_ADDRESSES = 4

const Literal = Schema.String.pipe(
  Schema.maxLength(45),
  Schema.filter((text) => IpBytes.parse(text, new Uint8Array(16)) !== 0 || "not a literal IP address")
)

export const RelayPoint = Schema.Struct({
  /** Of its membership; nodes name it when they bind. */
  name: Name,
  /** Literal ones, the likeliest first: nodes need no DNS to reach it. */
  addresses: Schema.NonEmptyArray(Literal).pipe(Schema.maxItems(MAX_ADDRESSES)),
  /** UDP. */
  port: Schema.Int.pipe(Schema.between(1, 65_535))
})
export type RelayPoint = typeof RelayPoint.Type

export const RelayPoints = Schema.Array(RelayPoint).pipe(Schema.maxItems(MAX_RELAYS))
