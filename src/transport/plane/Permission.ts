/** What a session's grant permits now, in the words of a flow's verdict. */
import type { Grant, Resource } from "../../protocol/Documents.ts"
import type { VerdictCode } from "../../protocol/FlowWire.ts"
import * as GrantCheck from "../../protocol/GrantCheck.ts"

export type Parties = Pick<GrantCheck.Request, "clientKey" | "connectorKey" | "nowSeconds">

export class Permission {
  #grant: Grant
  readonly #parties: () => Parties

  /** `parties`: the keys that the session's two ends have proved, and the time. */
  constructor(grant: Grant, parties: () => Parties) {
    this.#grant = grant
    this.#parties = parties
  }

  get grant(): Grant {
    return this.#grant
  }

  permit(host: string, port: number): { readonly resource: Resource; readonly dialHost: string } | VerdictCode {
    const verdict = GrantCheck.permits(this.#grant, { host, port, protocol: "tcp", ...this.#parties() })
    return verdict._tag === "Permitted" ? verdict : VERDICT_OF[verdict.reason]
  }

  /** Why the grant is of no more use; null: it is. */
  standing(): VerdictCode | null {
    const reason = GrantCheck.stands(this.#grant, this.#parties())
    return reason === null ? null : VERDICT_OF[reason]
  }

  /** Grants come by several ways, and late. `foreign`: for others than these two, or not for now. */
  replace(grant: Grant): "taken" | "older" | "foreign" {
    if (GrantCheck.stands(grant, this.#parties()) !== null) return "foreign"
    if (!GrantCheck.isNewer(grant, this.#grant)) return "older"
    this.#grant = grant
    return "taken"
  }
}

const VERDICT_OF: Readonly<Record<GrantCheck.Reason, VerdictCode>> = {
  expired: "grant_expired",
  not_yet_valid: "grant_expired",
  foreign_client: "denied",
  foreign_connector: "denied",
  unknown_resource: "name_not_found",
  port_not_listed: "port_not_listed"
}
