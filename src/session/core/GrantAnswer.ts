/** The connector's answer to a grant that its client sends on the control stream. */
import { Either } from "effect"
import type { SessionMessage } from "../../protocol/flow/SessionWire.ts"
import type { Grant } from "../../protocol/trust/Documents.ts"
import * as Signed from "../../protocol/trust/Signed.ts"

/** Options of {@link answer}. */
export interface Options {
  /** Verifies a grant. Otherwise returns the reason, for people. */
  readonly open: (signed: Signed.Signed) => Either.Either<Grant, string>
  /** Uses a verified grant. Returns `false` if it is for other nodes or not valid now. */
  readonly take: (grant: Grant, signed: Signed.Signed) => boolean
}

/** Takes the grant in `bytes` and returns the message that answers the client. */
export const answer = (bytes: Uint8Array, { open, take }: Options): SessionMessage => {
  const opened = Either.flatMap(
    Signed.fromBytes(bytes),
    (signed) => Either.map(open(signed), (grant) => ({ grant, signed }))
  )
  if (Either.isLeft(opened)) return { _tag: "GrantRefused", reason: opened.left }
  const { grant, signed } = opened.right
  return take(grant, signed) ? { _tag: "GrantAck", id: grant.id } : { _tag: "GrantRefused", reason: "for others" }
}
