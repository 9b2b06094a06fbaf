/**
 * The directory: nodes, enrolment tokens, resources, access rules and an audit log. Every read sees
 * what other processes wrote before it. `changesSince` tells a running relay that something
 * changed.
 */
import { Context, Effect, Layer, Option } from "effect"
import { join } from "node:path"
import type { RelayPoint } from "../../protocol/relay/RelayPoint.ts"
import type { Membership } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as DirectoryAudit from "./DirectoryAudit.ts"
import * as DirectoryDb from "./DirectoryDb.ts"
import * as DirectoryNodes from "./DirectoryNodes.ts"
import * as DirectoryPolicy from "./DirectoryPolicy.ts"
import * as DirectoryRelays from "./DirectoryRelays.ts"
import * as DirectoryTimes from "./DirectoryTimes.ts"

export type { Entry as AuditEntry } from "./DirectoryAudit.ts"
export { DirectoryError } from "./DirectoryDb.ts"
export {
  AlreadyEnrolled,
  type CreatedToken,
  type EnrolError,
  type EnrolRequest,
  NameTaken,
  type NewToken,
  type NodeRecord,
  NodeRemoved,
  TokenExpired,
  TokenUnknown,
  TokenUsed
} from "./DirectoryNodes.ts"
export {
  type AccessRule,
  type Authorized,
  Denied,
  type DialError,
  type DialRequest,
  type Policy,
  PortNotListed,
  UnknownResource
} from "./DirectoryPolicy.ts"

type Asked<A, E = never> = Effect.Effect<A, E | DirectoryDb.DirectoryError>

/**
 * The directory of one relay. Every operation fails with `DirectoryError` if the database cannot be
 * used.
 */
export class Directory extends Context.Tag("sallyport/services/Directory")<Directory, {
  /**
   * Creates an enrolment token. The secret exists only in the result; the database keeps its hash.
   */
  readonly createToken: (
    token: DirectoryNodes.NewToken
  ) => Asked<DirectoryNodes.CreatedToken, DirectoryNodes.NameTaken>
  /**
   * Enrols a node. A token works once, but the key that used it may repeat the request and gets the
   * same answer.
   */
  readonly enrol: (
    request: DirectoryNodes.EnrolRequest
  ) => Asked<Omit<Membership, "issuedAt">, DirectoryNodes.EnrolError>
  /** Finds a node. `None` if it never enrolled or was removed. */
  readonly findNode: (key: NodeKey) => Asked<Option.Option<DirectoryNodes.NodeRecord>>
  readonly listNodes: Asked<ReadonlyArray<DirectoryNodes.NodeRecord>>
  /** Lists the relays that have joined and reported their addresses, by name. */
  readonly relays: Asked<ReadonlyArray<RelayPoint>>
  /** Stores the addresses of a joined relay. Returns whether they changed. */
  readonly placeRelay: (key: NodeKey, point: RelayPoint) => Asked<boolean>
  /**
   * Removes a node permanently: its key stays refused, but its name is free. Returns `None` if no
   * node has this name, however it is written.
   */
  readonly removeNode: (name: string) => Asked<Option.Option<DirectoryNodes.NodeRecord>>
  /** Lists the nodes that were removed since `at` (epoch seconds), newest first, at most 10,000. */
  readonly removedSince: (at: number) => Asked<ReadonlyArray<DirectoryNodes.RemovedNode>>
  /**
   * Replaces all resources and access rules by those of the configuration. Returns whether anything
   * differed.
   */
  readonly replacePolicy: (policy: DirectoryPolicy.Policy) => Asked<boolean>
  readonly resources: Asked<ReadonlyArray<DirectoryPolicy.NamedResource>>
  /**
   * Decides whether this client may dial this target, and records the decision in the audit log.
   */
  readonly authorize: (
    request: DirectoryPolicy.DialRequest
  ) => Asked<DirectoryPolicy.Authorized, DirectoryPolicy.DialError>
  /**
   * Lists the resources that this client may reach in this network, or in all networks if `network`
   * is `null`. They become the content of a grant to a connector of the network. Empty if the key
   * belongs to no client.
   */
  readonly allResourcesFor: (
    clientKey: NodeKey,
    network: string | null
  ) => Asked<ReadonlyArray<DirectoryPolicy.NamedResource>>
  /** Id of the last change of nodes, tokens or policy. 0 before the first. */
  readonly latestAuditId: Asked<number>
  /** Lists changes after this id, oldest first, at most 1,000. Ask again from the last id. */
  readonly changesSince: (auditId: number) => Asked<ReadonlyArray<DirectoryAudit.Entry>>
  /** Latest time that was stored, in epoch milliseconds. 0 if none was. */
  readonly latestTime: Asked<number>
  /** Stores this time unless a later one is stored. */
  readonly keepTime: (ms: number) => Asked<void>
  /** Lists changes and dials, newest first. */
  readonly auditLog: (limit: number) => Asked<ReadonlyArray<DirectoryAudit.Entry>>
  /** Reads the whole database. Fails if it is damaged. */
  readonly check: Asked<void>
}>() {}

/** Name of the database file in a relay's state directory. */
export const DIRECTORY_FILE = "directory.db"

const make = Effect.fnUntraced(function*(stateDir: string) {
  const { check, read, write } = yield* DirectoryDb.make(join(stateDir, DIRECTORY_FILE))
  const policy = DirectoryPolicy.makeCache()

  const authorize = Effect.fn("Directory.authorize")(function*(request: DirectoryPolicy.DialRequest) {
    const { client, decision } = yield* read(Effect.fnUntraced(function*(sql) {
      const client = yield* DirectoryNodes.findByKey(sql, request.clientKey)
      return { client, decision: DirectoryPolicy.decide(yield* policy(sql), client, request) }
    }))
    const entry = DirectoryPolicy.entryOf(request, client, decision)
    // A dial proceeds even if it cannot be recorded, so that a full disk does not cut off every
    // client.
    yield* Effect.catchTag(
      write((sql) => DirectoryAudit.append(sql, entry)),
      "DirectoryError",
      ({ message }) => Effect.logWarning(`A dial is missing in the audit log: ${message}`)
    )
    return yield* decision
  })

  return Directory.of({
    createToken: (token) => write((sql) => DirectoryNodes.createToken(sql, token)),
    enrol: (request) => Effect.flatMap(write((sql) => DirectoryNodes.enrol(sql, request)), (verdict) => verdict),
    removedSince: (at) => read((sql) => DirectoryNodes.removedSince(sql, at)),
    findNode: (key) => read((sql) => DirectoryNodes.findByKey(sql, key)),
    listNodes: read(DirectoryNodes.list),
    relays: read(DirectoryRelays.list),
    placeRelay: (key, point) => write((sql) => DirectoryRelays.place(sql, key, point)),
    removeNode: (name) => write((sql) => DirectoryNodes.remove(sql, name)),
    replacePolicy: (wanted) => write((sql) => DirectoryPolicy.replace(sql, wanted)),
    resources: Effect.map(read(policy), ({ resources }) => resources),
    authorize,
    allResourcesFor: (clientKey, network) =>
      read(Effect.fnUntraced(function*(sql) {
        const client = yield* DirectoryNodes.findByKey(sql, clientKey)
        if (Option.isNone(client) || client.value.role !== "client") return []
        const allowed = DirectoryPolicy.allowed(yield* policy(sql), client.value.name)
        return allowed.filter((resource) => network === null || resource.network === network)
      })),
    latestAuditId: read(DirectoryAudit.latestId),
    changesSince: (auditId) => read((sql) => DirectoryAudit.since(sql, auditId)),
    latestTime: read(DirectoryTimes.latest),
    keepTime: (ms) => write((sql) => DirectoryTimes.keep(sql, ms)),
    auditLog: (limit) => read((sql) => DirectoryAudit.latest(sql, limit)),
    check
  })
})

/**
 * Opens `directory.db`, and creates it and its tables if they are missing. Two processes may have
 * it open.
 */
export const layer = (
  options: { readonly stateDir: string }
): Layer.Layer<Directory, DirectoryDb.DirectoryError> => Layer.scoped(Directory, make(options.stateDir))
