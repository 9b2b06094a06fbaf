/** What makes a relay itself: the authority's key, the TLS key and the directory, side by side in its `stateDir`. Made once. */
import { Effect, Schema } from "effect"
import { join } from "node:path"
import * as EnrolmentToken from "../protocol/EnrolmentToken.ts"
import type { NodeKey } from "../protocol/NodeKey.ts"
import { AUTHORITY_KEY_FILE } from "./Authority.ts"
import { type CreatedToken, Directory, DIRECTORY_FILE, layer as layerDirectory } from "./Directory.ts"
import * as Keys from "./Keys.ts"
import { TLS_KEY_FILE } from "./RelayTls.ts"
import * as StateFile from "./StateFile.ts"

/** `exists`: there is a relay already. `incomplete`: part of one is lost; making it anew would shut every node out. */
export class RelayKeysError extends Schema.TaggedError<RelayKeysError>()("RelayKeysError", {
  reason: Schema.Literal("exists", "incomplete", "unusable"),
  message: Schema.String
}) {}

/** The public halves. */
export interface RelayKeys {
  readonly authorityKey: NodeKey
  readonly tlsKey: NodeKey
}

const FILES = [AUTHORITY_KEY_FILE, TLS_KEY_FILE, DIRECTORY_FILE]

/** A new relay; nothing is touched where there is part of one. */
export const init = Effect.fn("RelayKeys.init")(function*(stateDir: string) {
  const present = yield* filesIn(stateDir)
  if (present.length > 0) {
    return yield* new RelayKeysError({
      reason: "exists",
      message: `${stateDir} has ${present.join(", ")} already; nothing was changed; choose another folder`
    })
  }
  return yield* make(stateDir)
})

/** For every start: makes a relay in an empty folder, and refuses a folder where part of one is missing. */
export const ensure = Effect.fn("RelayKeys.ensure")(function*(stateDir: string) {
  const present = yield* filesIn(stateDir)
  if (present.length === 0) {
    yield* Effect.logWarning(
      `${stateDir} holds no relay, so a new one is made there. If this relay had nodes, stop it and restore ${stateDir} ` +
        "from a backup: nodes refuse a relay with other keys"
    )
    return yield* make(stateDir)
  }
  const missing = FILES.filter((file) => !present.includes(file))
  if (missing.length > 0) {
    return yield* new RelayKeysError({
      reason: "incomplete",
      message: `${stateDir} has ${present.join(", ")} but not ${missing.join(", ")}; restore it from a backup; ` +
        "or, if nodes may all enrol again, move the rest away, too"
    })
  }
  return yield* read(stateDir)
})

/** Also beside a running relay. */
export const read = (stateDir: string): Effect.Effect<RelayKeys, Keys.KeyFileError> =>
  Effect.map(
    Effect.all([Keys.load(join(stateDir, AUTHORITY_KEY_FILE)), Keys.load(join(stateDir, TLS_KEY_FILE))]),
    ([authority, tls]) => ({ authorityKey: authority.publicKey, tlsKey: tls.publicKey })
  )

/** How nodes know a relay whose configuration this is; it goes into tokens. */
export const trustOf = (
  config: { readonly behindProxy: unknown; readonly tls: unknown },
  keys: RelayKeys
): EnrolmentToken.RelayTrust =>
  config.behindProxy !== null
    ? { _tag: "Proxied" }
    : config.tls !== null
    ? { _tag: "Ca" }
    : { _tag: "Pin", key: keys.tlsKey }

/** The text for an administrator to hand on; a secret. */
export const tokenText = (options: {
  readonly keys: RelayKeys
  readonly host: string
  readonly httpsPort: number
  readonly trust: EnrolmentToken.RelayTrust
  readonly token: CreatedToken
}): string =>
  EnrolmentToken.encode({
    host: options.host,
    httpsPort: options.httpsPort,
    tls: options.trust,
    authorityKey: options.keys.authorityKey,
    id: options.token.id,
    secret: options.token.secret
  })

/** The directory last: with it, the relay is whole. Of two processes at once both end with the same keys. */
const make = Effect.fnUntraced(function*(stateDir: string) {
  const authority = yield* Keys.loadOrCreate(join(stateDir, AUTHORITY_KEY_FILE))
  const tls = yield* Keys.loadOrCreate(join(stateDir, TLS_KEY_FILE))
  yield* Effect.provide(Directory, layerDirectory({ stateDir }))
  const keys: RelayKeys = { authorityKey: authority.publicKey, tlsKey: tls.publicKey }
  return keys
})

const filesIn = (stateDir: string) =>
  Effect.filter(FILES, (file) => StateFile.exists(join(stateDir, file))).pipe(
    Effect.mapError(({ message }) => new RelayKeysError({ reason: "unusable", message }))
  )
