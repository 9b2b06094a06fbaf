/** What a session's grant permits now, in the words of a flow's verdict. */
import type { Grant, Resource } from "../../protocol/Documents.ts"
import type { VerdictCode } from "../../protocol/FlowWire.ts"
import * as GrantCheck from "../../protocol/GrantCheck.ts"

export type Parties = Pick<GrantCheck.Request, "clientKey" | "connectorKey">

export interface Clocks {
  /** Epoch seconds by the directory's clock. */
  readonly nowSeconds: () => number
  /** Milliseconds of a clock that nobody sets; it goes on while the machine sleeps. */
  readonly hostMs: () => number
}

/**
 * A grant is judged by the directory's time when it comes. From then on it is a lease: what is left of it runs down by the
 * host's clock, so that no later news of the time ends it early or revives it.
 */
export class Permission {
  #grant: Grant
  readonly #parties: Parties
  readonly #clocks: Clocks
  /** `nowSeconds` minus `hostMs` when the grant came. */
  #offset: number

  /** `parties`: the keys that the session's two ends have proved. The grant was just found to be valid. */
  constructor(grant: Grant, parties: Parties, clocks: Clocks) {
    this.#grant = grant
    this.#parties = parties
    this.#clocks = clocks
    this.#offset = this.#offsetNow()
  }

  get grant(): Grant {
    return this.#grant
  }

  permit(host: string, port: number): { readonly resource: Resource; readonly dialHost: string } | VerdictCode {
    const verdict = GrantCheck.permits(this.#grant, { host, port, protocol: "tcp", ...this.#request() })
    return verdict._tag === "Permitted" ? verdict : VERDICT_OF[verdict.reason]
  }

  /** How long the grant still lasts. */
  get leftSeconds(): number {
    return this.#grant.expiresAt - this.#request().nowSeconds
  }

  /** Why the grant is of no more use; null: it is. */
  standing(): VerdictCode | null {
    const reason = GrantCheck.stands(this.#grant, this.#request())
    return reason === null ? null : VERDICT_OF[reason]
  }

  /** Grants come by several ways, and late. `foreign`: for others than these two, or not for now. */
  replace(grant: Grant): "taken" | "older" | "foreign" {
    const request = { ...this.#parties, nowSeconds: this.#clocks.nowSeconds() }
    if (GrantCheck.stands(grant, request) !== null) return "foreign"
    if (!GrantCheck.isNewer(grant, this.#grant)) return "older"
    this.#grant = grant
    this.#offset = this.#offsetNow()
    return "taken"
  }

  #offsetNow(): number {
    return this.#clocks.nowSeconds() - this.#clocks.hostMs() / 1000
  }

  #request() {
    return { ...this.#parties, nowSeconds: this.#clocks.hostMs() / 1000 + this.#offset }
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
