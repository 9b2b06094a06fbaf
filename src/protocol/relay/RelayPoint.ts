/**
 * A relay beside the relay of the directory: its description for nodes, and the list of such
 * relays.
 */
import { Schema } from "effect"
import * as IpBytes from "../bytes/IpBytes.ts"
import { Name } from "../trust/Documents.ts"

/** Most relays of one network, beside the relay of the directory. */
export const MAX_RELAYS = 7
/** Most addresses of one relay. */
export const MAX_ADDRESSES = 4

const Literal = Schema.String.pipe(
  Schema.maxLength(45),
  Schema.filter((text) => IpBytes.parse(text, new Uint8Array(16)) !== 0 || "not a literal IP address")
)

/** A relay of the network, as nodes learn of it. */
export const RelayPoint = Schema.Struct({
  /** Name in the relay's membership. Nodes name it when they bind. */
  name: Name,
  /** Literal addresses, the likeliest first, so that nodes need no DNS to reach the relay. */
  addresses: Schema.NonEmptyArray(Literal).pipe(Schema.maxItems(MAX_ADDRESSES)),
  /** UDP port. */
  port: Schema.Int.pipe(Schema.between(1, 65_535))
})
export type RelayPoint = typeof RelayPoint.Type

/** List of relays, at most {@link MAX_RELAYS}. */
export const RelayPoints = Schema.Array(RelayPoint).pipe(Schema.maxItems(MAX_RELAYS))
