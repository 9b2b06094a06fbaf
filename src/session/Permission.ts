/** The permission that a session's grant gives now, expressed as verdicts of flows. */
import type { Target, VerdictCode } from "../protocol/flow/FlowWire.ts"
import type { Grant, Outage as Permit, Resource } from "../protocol/trust/Documents.ts"
import * as GrantCheck from "../protocol/trust/GrantCheck.ts"
import * as Outage from "../protocol/trust/Outage.ts"

/** The node keys of a session's two ends. */
export type Parties = Pick<GrantCheck.Request, "clientKey" | "connectorKey">

/** Clocks by which a grant is judged. */
export interface Clocks {
  /** Returns the present time of the directory's clock, in epoch seconds. */
  readonly nowSeconds: () => number
  /** Milliseconds of a clock that is never adjusted. It continues while the machine sleeps. */
  readonly hostMs: () => number
  /** Whether the node reaches the directory now. If omitted, it always does. */
  readonly reach?: () => Outage.Reach
  /**
   * Longest time since a grant's issue for which it counts without the directory, in seconds. 0 if
   * it never counts after its end. If omitted, the outage permit alone decides.
   */
  readonly maxOutageSeconds?: () => number
}

/**
 * The permission of one session. When a grant arrives, it is checked against the directory's time.
 * After that its remaining life runs by the host's clock, so a later correction of the time
 * neither shortens nor prolongs it. While no directory is reached, it may count longer (`Outage`).
 */
export class Permission {
  #grant: Grant
  #permit: Permit | null
  readonly #parties: Parties
  readonly #clocks: Clocks
  /** `nowSeconds` minus `hostMs`, in seconds, when the grant arrived. */
  #offset: number

  /**
   * The grant must have been found valid just before. `parties` are the keys that the session's two
   * ends have proved.
   */
  constructor(grant: Grant, parties: Parties, clocks: Clocks, permit: Permit | null = null) {
    this.#grant = grant
    this.#permit = permit
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
    const verdict = GrantCheck.permits(this.#grant, { host, port, protocol: kind, ...this.#judged() })
    return verdict._tag === "Permitted" ? verdict : VERDICT_OF[verdict.reason]
  }

  /** Seconds until the grant itself expires. Negative while it counts because of an outage. */
  get leftSeconds(): number {
    return this.#grant.expiresAt - this.#request().nowSeconds
  }

  /** Reason why the grant no longer permits anything. `null` if it still does. */
  standing(): VerdictCode | null {
    const reason = GrantCheck.stands(this.#grant, this.#judged())
    return reason === null ? null : VERDICT_OF[reason]
  }

  /** When the grant ends while no directory is reached, in epoch seconds. */
  get outageEndsAt(): number {
    return Outage.endOf(this.#grant, this.#permit, this.#clocks.maxOutageSeconds?.() ?? Infinity)
  }

  /**
   * Takes an outage permit, which may arrive after its grant. Returns `false` if it is for another
   * grant than the current one.
   */
  prolong(permit: Permit): boolean {
    if (permit.grant !== this.#grant.id) return false
    this.#permit = permit
    return true
  }

  /**
   * Takes a newer grant. Grants arrive from several sources and may be late. `older`: the grant is
   * not newer than the current one. `foreign`: it is for other nodes, or not valid now.
   */
  replace(grant: Grant, permit: Permit | null = null): "taken" | "older" | "foreign" {
    const request = { ...this.#parties, nowSeconds: this.#clocks.nowSeconds() }
    if (GrantCheck.stands(grant, request) !== null) return "foreign"
    if (!GrantCheck.isNewer(grant, this.#grant)) {
      if (permit !== null) this.prolong(permit)
      return "older"
    }
    this.#grant = grant
    this.#permit = permit
    this.#offset = this.#offsetNow()
    return "taken"
  }

  #offsetNow(): number {
    return this.#clocks.nowSeconds() - this.#clocks.hostMs() / 1000
  }

  /** The request's time is the grant's last moment while an expired grant still counts. */
  #judged() {
    const request = this.#request()
    const { hostMs, maxOutageSeconds, reach } = this.#clocks
    if (request.nowSeconds < this.#grant.expiresAt || reach === undefined) return request
    const isCounting = Outage.counts(this.#grant, this.#permit, {
      reach: reach(),
      maxSeconds: maxOutageSeconds?.() ?? Infinity,
      nowMs: hostMs(),
      nowSeconds: request.nowSeconds
    })
    return isCounting ? { ...request, nowSeconds: this.#grant.expiresAt } : request
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
