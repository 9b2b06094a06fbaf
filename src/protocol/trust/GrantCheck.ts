/**
 * Checks whether a grant permits a flow. The connector asks for every flow, and again whenever the
 * grant is replaced.
 */
import { type Grant, MAX_GRANT_SECONDS, type Resource, timing } from "./Documents.ts"
import type { NodeKey } from "./NodeKey.ts"
import * as ResourceMatch from "./ResourceMatch.ts"

/** A flow that is asked for, and the two nodes of its session. */
export interface Request {
  /** Name of a resource or an address, as the application asked for it. */
  readonly host: string
  readonly protocol: ResourceMatch.Protocol
  readonly port: number
  /** Key of the peer, as its certificate proved it. */
  readonly clientKey: NodeKey
  /** The connector's own key. */
  readonly connectorKey: NodeKey
  /** Present time of the directory's clock, in epoch seconds. */
  readonly nowSeconds: number
}

/** Reason why a grant does not permit a flow. */
export type Reason =
  | "expired"
  | "not_yet_valid"
  | "foreign_connector"
  | "foreign_client"
  | "unknown_resource"
  | "port_not_listed"

export type Verdict =
  /** `dialHost` must still be resolved, and the addresses that come of it must still be checked. */
  | { readonly _tag: "Permitted"; readonly resource: Resource; readonly dialHost: string }
  | { readonly _tag: "Refused"; readonly reason: Reason }

/** Decides whether a grant permits a flow. Its signature must have been verified before. */
export const permits = (grant: Grant, request: Request): Verdict => {
  const standing = stands(grant, request)
  if (standing !== null) return { _tag: "Refused", reason: standing }
  const found = ResourceMatch.matches(grant.resources, request.host)
  if (found.length === 0) return { _tag: "Refused", reason: "unknown_resource" }
  const match = found.find(({ resource }) => ResourceMatch.listsPort(resource, request.protocol, request.port))
  if (match === undefined) return { _tag: "Refused", reason: "port_not_listed" }
  return { _tag: "Permitted", resource: match.resource, dialHost: match.dialHost }
}

/**
 * Whether `grant` was issued after `other`. If both are of the same second, the authority's ids
 * decide, which ascend.
 */
export const isNewer = (grant: Grant, other: Grant): boolean =>
  grant.issuedAt > other.issuedAt || (grant.issuedAt === other.issuedAt && grant.id > other.id)

/** Returns why the grant is not valid for these two nodes now, or `null` if it is valid. */
export const stands = (
  grant: Grant,
  { clientKey, connectorKey, nowSeconds }: Pick<Request, "clientKey" | "connectorKey" | "nowSeconds">
): Exclude<Reason, "unknown_resource" | "port_not_listed"> | null => {
  if (grant.connectorKey !== connectorKey) return "foreign_connector"
  if (grant.clientKey !== clientKey) return "foreign_client"
  const untimely = timing(grant, MAX_GRANT_SECONDS, nowSeconds)
  return untimely === "too_long_lived" ? "not_yet_valid" : untimely
}
