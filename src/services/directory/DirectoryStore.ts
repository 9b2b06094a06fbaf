/**
 * Storage of the directory, as a service. The database is one implementation; another store
 * implements the same calls and passes the same tests (`test/suite/support/DirectoryContract.ts`).
 * Access is not decided here: `Directory` does that for every store.
 */
import { Context, type Effect, type Option, Schema } from "effect"
import type { RelayPoint } from "../../protocol/relay/RelayPoint.ts"
import type { Membership } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type * as DirectoryAudit from "./DirectoryAudit.ts"
import type * as DirectoryNodes from "./DirectoryNodes.ts"
import type * as DirectoryPolicy from "./DirectoryPolicy.ts"

/**
 * Error when the store cannot be used. `message` says what to check. The cause `busy` may end
 * without help.
 */
export class DirectoryError extends Schema.TaggedError<DirectoryError>()("DirectoryError", {
  reason: Schema.Literal("busy", "full", "damaged", "unusable"),
  message: Schema.String
}) {}

/** A call of the store. It fails with `DirectoryError` if the store cannot be used. */
export type Asked<A, E = never> = Effect.Effect<A, E | DirectoryError>

/**
 * Storage of one relay's directory. Every call is one transaction: it happens whole or not at all.
 */
export interface Store {
  /**
   * Creates an enrolment token. The secret exists only in the result; the store keeps its hash.
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
  /** Reads all resources and access rules. */
  readonly policy: Asked<DirectoryPolicy.Loaded>
  /** Reads the policy and a node as they were at one moment. `None` as in `findNode`. */
  readonly policyFor: (key: NodeKey) => Asked<{
    readonly node: Option.Option<DirectoryNodes.NodeRecord>
    readonly policy: DirectoryPolicy.Loaded
  }>
  /** Appends the decision about a dial to the audit log. */
  readonly recordDial: (entry: DirectoryAudit.NewEntry) => Asked<void>
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
  /** Reads the whole store. Fails if it is damaged. */
  readonly check: Asked<void>
}

/** Tag of the store that the directory uses. */
export class DirectoryStore extends Context.Tag("sallyport/services/DirectoryStore")<DirectoryStore, Store>() {}
