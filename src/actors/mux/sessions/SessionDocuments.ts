/**
 * Verifies the signed documents of sessions. The relay passes them on and is not trusted, so each
 * is checked when it arrives.
 */
import { Either } from "effect"
import type * as Documents from "../../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import type { Signed } from "../../../protocol/trust/Signed.ts"
import * as Authority from "../../../services/identity/Authority.ts"
import * as DocumentPair from "../../../session/core/DocumentPair.ts"
import type { OpenedOutage } from "../../../transport/plane/FlowSession.ts"

/** Verified documents of a session. `outage` is `null` if no valid permit came with them. */
export interface Opened {
  readonly grant: Documents.Grant
  readonly outage: OpenedOutage | null
  readonly ticket: Documents.Ticket
}

/** Signed documents of a session, as the relay sends them. */
export interface Sealed {
  readonly grant: Signed
  readonly ticket: Signed
  readonly outage?: Signed | undefined
}

/** Options of {@link make}. */
export interface Options extends DocumentPair.End {
  readonly authorityKey: NodeKey
  /** Returns the present time of the directory's clock, in epoch seconds. */
  readonly nowSeconds: () => number
}

/** Makes the checks of one end of sessions. A failure is the reason, for people. */
export const make = ({ authorityKey, nowSeconds, ...end }: Options) => {
  const verify = <K extends Documents.Kind>(kind: K, signed: Signed) =>
    Either.mapLeft(Authority.verify(kind, signed, authorityKey, nowSeconds()), ({ message }) => message)
  /** Verifies an outage permit. Without a valid one, a grant just ends at its end. */
  const outageOf = (signed: Signed | undefined): OpenedOutage | null => {
    if (signed === undefined) return null
    const opened = verify("outage", signed)
    return Either.isRight(opened) ? { document: opened.right, signed } : null
  }
  /** Verifies the documents, and that they are for this node and for each other. */
  const open = ({ grant, outage, ticket }: Sealed): Either.Either<Opened, string> =>
    Either.flatMap(Either.all({ grant: verify("grant", grant), ticket: verify("ticket", ticket) }), (opened) => {
      const reason = DocumentPair.mismatch(opened.grant, opened.ticket, end)
      return reason === null ? Either.right({ ...opened, outage: outageOf(outage) }) : Either.left(reason)
    })
  return { open, outageOf, verify } as const
}

/** Checks of one end of sessions. */
export type SessionDocuments = ReturnType<typeof make>
