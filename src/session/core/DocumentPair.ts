/** Checks that the two documents of a session belong together and to this end of the session. */
import type { Grant, Ticket } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"

/** One end of a session. */
export interface End {
  readonly role: "client" | "connector"
  readonly key: NodeKey
}

/**
 * Reason why a verified grant and a verified ticket give no session to this end, for people. `null`
 * if they do.
 */
export const mismatch = (grant: Grant, ticket: Ticket, { key, role }: End): string | null => {
  const { clientKey, connectorKey } = ticket
  if (grant.clientKey !== clientKey || grant.connectorKey !== connectorKey) {
    return "grant and ticket are for different nodes"
  }
  return (role === "client" ? clientKey : connectorKey) === key ? null : "the grant is for another node"
}
