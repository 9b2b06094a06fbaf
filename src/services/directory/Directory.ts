/**
 * The directory: nodes, enrolment tokens, resources, access rules and an audit log. Every read sees
 * what other processes wrote before it. `changesSince` tells a running relay that something
 * changed.
 */
import { Context, Effect, Layer, Option } from "effect"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as DirectoryPolicy from "./DirectoryPolicy.ts"
import { type Asked, type DirectoryError, DirectoryStore, type Store } from "./DirectoryStore.ts"
import * as LibsqlStore from "./LibsqlStore.ts"

export type { Entry as AuditEntry } from "./DirectoryAudit.ts"
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
export { DirectoryError } from "./DirectoryStore.ts"
export { DIRECTORY_FILE } from "./LibsqlStore.ts"

/** Calls of the store from which access is decided. Nobody else needs them. */
type Inner = "policy" | "policyFor" | "recordDial"

/**
 * The directory of one relay. Every operation fails with `DirectoryError` if the store cannot be
 * used.
 */
export class Directory extends Context.Tag("sallyport/services/Directory")<
  Directory,
  & Omit<Store, Inner>
  & {
    readonly resources: Asked<ReadonlyArray<DirectoryPolicy.NamedResource>>
    /**
     * Decides whether this client may dial this target, and records the decision in the audit log.
     */
    readonly authorize: (
      request: DirectoryPolicy.DialRequest
    ) => Asked<DirectoryPolicy.Authorized, DirectoryPolicy.DialError>
    /**
     * Lists the resources that this client may reach in this network, or in all networks if
     * `network` is `null`. They become the content of a grant to a connector of the network. Empty
     * if the key belongs to no client.
     */
    readonly allResourcesFor: (
      clientKey: NodeKey,
      network: string | null
    ) => Asked<ReadonlyArray<DirectoryPolicy.NamedResource>>
  }
>() {}

/** Makes the directory on a store. It decides about access, whatever the store is. */
export const fromStore: Layer.Layer<Directory, never, DirectoryStore> = Layer.effect(
  Directory,
  Effect.map(DirectoryStore, ({ policy, policyFor, recordDial, ...store }) => {
    const authorize = Effect.fn("Directory.authorize")(function*(request: DirectoryPolicy.DialRequest) {
      const { node: client, policy } = yield* policyFor(request.clientKey)
      const decision = DirectoryPolicy.decide(policy, client, request)
      // A dial proceeds even if it cannot be recorded, so that a full disk does not cut off every
      // client.
      yield* Effect.catchTag(
        recordDial(DirectoryPolicy.entryOf(request, client, decision)),
        "DirectoryError",
        ({ message }) => Effect.logWarning(`A dial is missing in the audit log: ${message}`)
      )
      return yield* decision
    })
    return Directory.of({
      ...store,
      resources: Effect.map(policy, ({ resources }) => resources),
      authorize,
      allResourcesFor: (clientKey, network) =>
        Effect.map(policyFor(clientKey), ({ node: client, policy }) => {
          if (Option.isNone(client) || client.value.role !== "client") return []
          const allowed = DirectoryPolicy.allowed(policy, client.value.name)
          return allowed.filter((resource) => network === null || resource.network === network)
        })
    })
  })
)

/**
 * Opens `directory.db`, and creates it and its tables if they are missing. Two processes may have
 * it open.
 */
export const layer = (options: { readonly stateDir: string }): Layer.Layer<Directory, DirectoryError> =>
  Layer.provide(fromStore, LibsqlStore.layer(options))
