/** The permission that a session's grant gives now, expressed as verdicts of flows. */
import type { Target, VerdictCode } from "../protocol/flow/FlowWire.ts"
import type { Grant, Resource } from "../protocol/trust/Documents.ts"
import * as GrantCheck from "../protocol/trust/GrantCheck.ts"

/** The node keys of a session's two ends. */
export type Parties = Pick<GrantCheck.Request, "clientKey" | "connectorKey">

/** Clocks by which a grant is judged. */
export interface Clocks {
  /** Returns the present time of the directory's clock, in epoch seconds. */
  readonly nowSeconds: () => number
  /** Milliseconds of a clock that is never adjusted. It continues while the machine sleeps. */
  readonly hostMs: () => number
}

/**
 * The permission of one session. When a grant arrives, it is checked against the directory's time.
 * After that its remaining life runs by the host's clock, so a later correction of the time
 * neither shortens nor prolongs it.
 */
export class Permission {
  #grant: Grant
  readonly #parties: Parties
  readonly #clocks: Clocks
  /** `nowSeconds` minus `hostMs`, in seconds, when the grant arrived. */
  #offset: number

  /**
   * The grant must have been found valid just before. `parties` are the keys that the session's two
   * ends have proved.
   */
  constructor(grant: Grant, parties: Parties, clocks: Clocks) {
    this.#grant = grant
    this.#parties = parties
    this.#clocks = clocks
    this.#offset = this.#offsetNow()
  }

  get grant(): Grant {
    return this.#grant
  }

  /**
   * Whether the grant permits a flow to this target. Returns the resource and the name to dial, or
   * the verdict that the client gets.
   */
  permit(
    { host, kind, port }: Target
  ): { readonly resource: Resource; readonly dialHost: string } | VerdictCode {
    const verdict = GrantCheck.permits(this.#grant, { host, port, protocol: kind, ...this.#request() })
    return verdict._tag === "Permitted" ? verdict : VERDICT_OF[verdict.reason]
  }

  /** Seconds until the grant expires. */
  get leftSeconds(): number {
    return this.#grant.expiresAt - this.#request().nowSeconds
  }

  /** Reason why the grant no longer permits anything. `null` if it still does. */
  standing(): VerdictCode | null {
    const reason = GrantCheck.stands(this.#grant, this.#request())
    return reason === null ? null : VERDICT_OF[reason]
  }

  /**
   * Takes a newer grant. Grants arrive from several sources and may be late. `older`: the grant is
   * not newer than the current one. `foreign`: it is for other nodes, or not valid now.
   */
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
