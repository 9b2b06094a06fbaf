/**
 * Who is in the network and who may reach what: nodes, enrolment tokens, resources, access rules and an audit log. Every read
 * sees what other processes wrote before it; `changesSince` tells a running relay that there is something to see.
 */
import { Context, Effect, Layer, Option } from "effect"
import { join } from "node:path"
import type { Membership, Resource } from "../protocol/Documents.ts"
import type { NodeKey } from "../protocol/NodeKey.ts"
import type { RelayPoint } from "../protocol/RelayPoint.ts"
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

export class Directory extends Context.Tag("sallyport/services/Directory")<Directory, {
  /** The secret exists only in the answer; the database keeps its hash. */
  readonly createToken: (
    token: DirectoryNodes.NewToken
  ) => Asked<DirectoryNodes.CreatedToken, DirectoryNodes.NameTaken>
  /** Once for each token; the key that used it may ask again, and gets the same answer. */
  readonly enrol: (
    request: DirectoryNodes.EnrolRequest
  ) => Asked<Omit<Membership, "issuedAt">, DirectoryNodes.EnrolError>
  /** None: never enrolled, or removed. */
  readonly findNode: (key: NodeKey) => Asked<Option.Option<DirectoryNodes.NodeRecord>>
  readonly listNodes: Asked<ReadonlyArray<DirectoryNodes.NodeRecord>>
  /** Of one network, by name. */
  readonly connectorsOf: (network: string) => Asked<ReadonlyArray<DirectoryNodes.NodeRecord>>
  /** Relays that have joined and have said where they are, by name. */
  readonly relays: Asked<ReadonlyArray<RelayPoint>>
  /** Where a relay is reached from now on. Answers whether it is news. */
  readonly placeRelay: (key: NodeKey, point: RelayPoint) => Asked<boolean>
  /** For good: its key stays refused, its name is free. None: there was no such node. */
  readonly removeNode: (name: string) => Asked<Option.Option<DirectoryNodes.NodeRecord>>
  /** Nodes that were removed since then (epoch seconds), the newest first, at most 10,000. */
  readonly removedSince: (at: number) => Asked<ReadonlyArray<DirectoryNodes.RemovedNode>>
  /** The configuration is the truth: what it does not say is gone. Answers whether anything differed. */
  readonly replacePolicy: (policy: DirectoryPolicy.Policy) => Asked<boolean>
  readonly resources: Asked<ReadonlyArray<Resource>>
  /** Whether this client may dial this; recorded in the audit log. */
  readonly authorize: (
    request: DirectoryPolicy.DialRequest
  ) => Asked<DirectoryPolicy.Authorized, DirectoryPolicy.DialError>
  /** What a grant to a connector of this network says; null: of all networks. Empty for a key that is no client. */
  readonly allResourcesFor: (clientKey: NodeKey, network: string | null) => Asked<ReadonlyArray<Resource>>
  /** Id of the last change (of nodes, tokens or policy); 0 before the first. */
  readonly latestAuditId: Asked<number>
  /** Changes after this id, oldest first, at most 1,000: ask again from the last one. */
  readonly changesSince: (auditId: number) => Asked<ReadonlyArray<DirectoryAudit.Entry>>
  /** The latest time that was kept, epoch milliseconds; 0 if none was. */
  readonly latestTime: Asked<number>
  /** Keeps this time unless a later one is kept. */
  readonly keepTime: (ms: number) => Asked<void>
  /** Changes and dials, newest first. */
  readonly auditLog: (limit: number) => Asked<ReadonlyArray<DirectoryAudit.Entry>>
}>() {}

export const DIRECTORY_FILE = "directory.db"

const make = Effect.fnUntraced(function*(stateDir: string) {
  const { read, write } = yield* DirectoryDb.make(join(stateDir, DIRECTORY_FILE))
  const policy = DirectoryPolicy.makeCache()

  const authorize = Effect.fn("Directory.authorize")(function*(request: DirectoryPolicy.DialRequest) {
    const { client, decision } = yield* read(Effect.fnUntraced(function*(sql) {
      const client = yield* DirectoryNodes.findByKey(sql, request.clientKey)
      return { client, decision: DirectoryPolicy.decide(yield* policy(sql), client, request) }
    }))
    const entry = DirectoryPolicy.entryOf(request, client, decision)
    // A dial that cannot be recorded goes on: a full disk must not cut everybody off.
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
    connectorsOf: (network) => read((sql) => DirectoryNodes.connectorsOf(sql, network)),
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
    auditLog: (limit) => read((sql) => DirectoryAudit.latest(sql, limit))
  })
})

/** Opens `directory.db`, making it and its tables where they are missing. Two processes may have it open. */
export const layer = (
  options: { readonly stateDir: string }
): Layer.Layer<Directory, DirectoryDb.DirectoryError> => Layer.scoped(Directory, make(options.stateDir))
