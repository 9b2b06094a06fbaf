/**
 * Resources and access rules of the directory. They are replaced as a whole from the relay's
 * configuration and consulted at every dial. Whatever no rule allows is denied.
 */
import type { SqlClient } from "@effect/sql"
import { Effect, Either, Option, Schema } from "effect"
import type { PortRange, Resource } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as ResourceMatch from "../../protocol/trust/ResourceMatch.ts"
import * as DirectoryAudit from "./DirectoryAudit.ts"
import type * as DirectoryNodes from "./DirectoryNodes.ts"

/** Allows each of these clients to reach each of these resources; "*" stands for all. */
export interface AccessRule {
  readonly clients: ReadonlyArray<string>
  readonly resources: ReadonlyArray<string>
}

/** A resource of the directory. */
export interface NamedResource extends Resource {
  /** Name as people wrote it. Absent if that is the same as the compared name. */
  readonly shown?: string
}

/** The complete policy of a relay's configuration. */
export interface Policy {
  readonly resources: ReadonlyArray<NamedResource>
  readonly access: ReadonlyArray<AccessRule>
}

/** A client's request to reach a target. */
export interface DialRequest {
  readonly clientKey: NodeKey
  /** Name of a resource, or an address that a resource covers, as the application asked for it. */
  readonly host: string
  readonly protocol: ResourceMatch.Protocol
  /** Port of the target, from 1 to 65535. */
  readonly port: number
}

/** The result of an allowed dial. */
export interface Authorized {
  readonly client: DirectoryNodes.NodeRecord
  readonly resource: Resource
  /** The network whose connectors can reach the resource. */
  readonly network: string
}

/**
 * Error when the resource exists, but no rule lets this client reach it, or the key belongs to no
 * client.
 */
export class Denied extends Schema.TaggedError<Denied>()("Denied", { message: Schema.String }) {}
/** Error when no resource has this name or address. */
export class UnknownResource extends Schema.TaggedError<UnknownResource>()("UnknownResource", {
  message: Schema.String
}) {}
/** Error when the client may reach the resource, but not at this port. */
export class PortNotListed extends Schema.TaggedError<PortNotListed>()("PortNotListed", { message: Schema.String }) {}

export type DialError = Denied | UnknownResource | PortNotListed

/**
 * Longest part of a client's requested host that is shown in messages and in the audit log, in
 * characters.
 */
const MAX_SHOWN_CHARS = 100

/** The policy as it is kept in memory between dials, until somebody writes to the database. */
export interface Loaded {
  /** All resources, in the order of the configuration. */
  readonly resources: ReadonlyArray<NamedResource>
  /**
   * Names of the resources that each client may reach. "*" stands for all clients or all resources.
   */
  readonly access: ReadonlyMap<string, ReadonlySet<string>>
}

/** Replaces the stored policy. Returns `false` if nothing differed and nothing was written. */
export const replace = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, policy: Policy) {
  const pairs = pairsOf(policy.access)
  if (same(yield* load(sql), policy.resources, pairs)) return false
  yield* sql`DELETE FROM resources`
  yield* sql`DELETE FROM access`
  yield* Effect.forEach(policy.resources, (resource, position) =>
    sql`INSERT INTO resources ${
      sql.insert({
        position,
        name: resource.name,
        written: resource.shown ?? null,
        network: resource.network,
        address: resource.address,
        tcp: JSON.stringify(resource.tcp),
        udp: JSON.stringify(resource.udp),
        allow_loopback: resource.allowLoopback ? 1 : 0
      })
    }`, { discard: true })
  yield* Effect.forEach(
    pairs,
    ([client, resource]) => sql`INSERT INTO access (client, resource) VALUES (${client}, ${resource})`,
    { discard: true }
  )
  yield* DirectoryAudit.append(sql, {
    kind: "policy_replaced",
    nodeName: null,
    nodeKey: null,
    detail: { resources: policy.resources.length, access: pairs.length }
  })
  return true
})

const load = Effect.fnUntraced(function*(sql: SqlClient.SqlClient) {
  const rows = yield* sql<ResourceRow>`SELECT * FROM resources ORDER BY position`
  const pairs = yield* sql<{ client: string; resource: string }>`SELECT client, resource FROM access`
  const access = new Map<string, Set<string>>()
  for (const { client, resource } of pairs) access.set(client, (access.get(client) ?? new Set()).add(resource))
  const loaded: Loaded = { resources: rows.map(fromRow), access }
  return loaded
})

/** Returns the resources that this client may reach, in the order of the configuration. */
export const allowed = ({ access, resources }: Loaded, clientName: string): ReadonlyArray<NamedResource> => {
  const rules = [access.get(clientName), access.get("*")].filter((rule) => rule !== undefined)
  return rules.some((rule) => rule.has("*"))
    ? resources
    : resources.filter(({ name }) => rules.some((rule) => rule.has(name)))
}

/**
 * Decides whether a client may dial a target. The connector's check of the grant gives the same
 * answer later, because both use `ResourceMatch`.
 */
export const decide = (
  loaded: Loaded,
  client: Option.Option<DirectoryNodes.NodeRecord>,
  request: DialRequest
): Either.Either<Authorized, DialError> => {
  const { host, port, protocol } = request
  if (Option.isNone(client) || client.value.role !== "client") {
    return Either.left(new Denied({ message: "this key belongs to no client of the relay" }))
  }
  const mine = allowed(loaded, client.value.name)
  const match = ResourceMatch.find(mine, host, protocol, port)
  if (match !== undefined) {
    return Either.right({ client: client.value, resource: match.resource, network: match.resource.network })
  }
  const shown = host.slice(0, MAX_SHOWN_CHARS)
  const near = ResourceMatch.matches(mine, host)[0]?.resource
  if (near !== undefined) {
    const name = mine.find((resource) => resource.name === near.name)?.shown ?? near.name
    return Either.left(
      new PortNotListed({
        message: `${name} does not list ${protocol} port ${port}; add it under resources at the relay`
      })
    )
  }
  return Either.left(
    ResourceMatch.matches(loaded.resources, host).length > 0
      ? new Denied({
        message: `no access rule lets ${client.value.shown} reach ${shown}; add one under access at the relay`
      })
      : new UnknownResource({ message: `no resource is named ${shown} or has that address; check the name` })
  )
}

/**
 * Creates a loader that keeps the policy in memory. It reads the database again only after the
 * policy was replaced, by this process or another.
 */
export const makeCache = () => {
  // only one caller at a time uses it, the one that holds the database
  let cached: { readonly id: number; readonly loaded: Loaded } | undefined
  return Effect.fnUntraced(function*(sql: SqlClient.SqlClient) {
    const id = yield* DirectoryAudit.policyId(sql)
    if (cached?.id !== id) cached = { id, loaded: yield* load(sql) }
    return cached.loaded
  })
}

/** Makes the audit log entry of a dial. */
export const entryOf = (
  { clientKey, host, port, protocol }: DialRequest,
  client: Option.Option<DirectoryNodes.NodeRecord>,
  decision: Either.Either<Authorized, DialError>
): DirectoryAudit.NewEntry => ({
  kind: Either.isRight(decision) ? "dial_allowed" : "dial_denied",
  nodeName: Option.match(client, { onNone: () => null, onSome: ({ name }) => name }),
  nodeKey: clientKey,
  detail: {
    host: host.slice(0, MAX_SHOWN_CHARS),
    protocol,
    port,
    ...(Either.isRight(decision) ? { resource: decision.right.resource.name } : { reason: decision.left._tag })
  }
})

type Pairs = ReadonlyArray<readonly [client: string, resource: string]>

const pairsOf = (rules: ReadonlyArray<AccessRule>): Pairs => {
  const pairs = rules.flatMap(({ clients, resources }) =>
    clients.flatMap((client) => resources.map((resource) => [client, resource] as const))
  )
  return [...new Map(pairs.map((pair) => [pair.join(" "), pair])).values()] // names have no spaces
}

const same = (loaded: Loaded, resources: ReadonlyArray<NamedResource>, pairs: Pairs): boolean => {
  const count = [...loaded.access.values()].reduce((sum, { size }) => sum + size, 0)
  return count === pairs.length && pairs.every(([client, resource]) => loaded.access.get(client)?.has(resource)) &&
    JSON.stringify(loaded.resources.map(canonical)) === JSON.stringify(resources.map(canonical))
}

const ports = (ranges: ReadonlyArray<PortRange>) => ranges.map(({ from, to }) => [from, to])
const canonical = ({ address, allowLoopback, name, network, shown = name, tcp, udp }: NamedResource) => [
  name,
  shown,
  network,
  address,
  ports(tcp),
  ports(udp),
  allowLoopback
]

interface ResourceRow {
  readonly name: string
  readonly written: string | null
  readonly network: string
  readonly address: string
  readonly tcp: string
  readonly udp: string
  readonly allow_loopback: number
}

const fromRow = ({ address, allow_loopback, name, network, tcp, udp, written }: ResourceRow): NamedResource => ({
  name,
  ...(written !== null && { shown: written }),
  network,
  address,
  tcp: JSON.parse(tcp) as ReadonlyArray<PortRange>,
  udp: JSON.parse(udp) as ReadonlyArray<PortRange>,
  allowLoopback: allow_loopback === 1
})
