/** The directory's store in a libSQL file, `directory.db`. */
import { Effect, Layer } from "effect"
import { join } from "node:path"
import * as DirectoryAudit from "./DirectoryAudit.ts"
import * as DirectoryDb from "./DirectoryDb.ts"
import * as DirectoryNodes from "./DirectoryNodes.ts"
import * as DirectoryPolicy from "./DirectoryPolicy.ts"
import * as DirectoryRelays from "./DirectoryRelays.ts"
import { type DirectoryError, DirectoryStore } from "./DirectoryStore.ts"
import * as DirectoryTimes from "./DirectoryTimes.ts"

/** Name of the database file in a relay's state directory. */
export const DIRECTORY_FILE = "directory.db"

const make = Effect.fnUntraced(function*(stateDir: string) {
  const { check, read, write } = yield* DirectoryDb.make(join(stateDir, DIRECTORY_FILE))
  const policy = DirectoryPolicy.makeCache()
  return DirectoryStore.of({
    createToken: (token) => write((sql) => DirectoryNodes.createToken(sql, token)),
    enrol: (request) => Effect.flatMap(write((sql) => DirectoryNodes.enrol(sql, request)), (verdict) => verdict),
    removedSince: (at) => read((sql) => DirectoryNodes.removedSince(sql, at)),
    findNode: (key) => read((sql) => DirectoryNodes.findByKey(sql, key)),
    listNodes: read(DirectoryNodes.list),
    relays: read(DirectoryRelays.list),
    placeRelay: (key, point) => write((sql) => DirectoryRelays.place(sql, key, point)),
    removeNode: (name) => write((sql) => DirectoryNodes.remove(sql, name)),
    replacePolicy: (wanted) => write((sql) => DirectoryPolicy.replace(sql, wanted)),
    policy: read(policy),
    policyFor: (key) => read((sql) => Effect.all({ node: DirectoryNodes.findByKey(sql, key), policy: policy(sql) })),
    recordDial: (entry) => write((sql) => DirectoryAudit.append(sql, entry)),
    latestAuditId: read(DirectoryAudit.latestId),
    changesSince: (auditId) => read((sql) => DirectoryAudit.since(sql, auditId)),
    latestTime: read(DirectoryTimes.latest),
    keepTime: (ms) => write((sql) => DirectoryTimes.keep(sql, ms)),
    auditLog: (limit) => read((sql) => DirectoryAudit.latest(sql, limit)),
    check
  })
})

/** Opens the database until the scope closes, and creates it if it is missing. */
export const layer = (
  { stateDir }: { readonly stateDir: string }
): Layer.Layer<DirectoryStore, DirectoryError> => Layer.scoped(DirectoryStore, make(stateDir))
