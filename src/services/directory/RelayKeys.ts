/**
 * The identity of a relay: the authority's key, the TLS key and the directory, next to each other
 * in its `stateDir`. They are created once.
 */
import { Effect, Schema } from "effect"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import * as EnrolmentToken from "../../protocol/trust/EnrolmentToken.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as StateDir from "../host/StateDir.ts"
import * as StateFile from "../host/StateFile.ts"
import { AUTHORITY_KEY_FILE } from "../identity/Authority.ts"
import * as Keys from "../identity/Keys.ts"
import { TLS_KEY_FILE } from "../identity/RelayTls.ts"
import type { TurnSecretError } from "../identity/TurnCredentials.ts"
import {
  type CreatedToken,
  Directory,
  DIRECTORY_FILE,
  type DirectoryError,
  layer as layerDirectory
} from "./Directory.ts"

/**
 * Error when a relay could not be created or started. `exists`: the folder already holds a relay or
 * a part of one. `absent`: it holds none, and nobody asked for a new one. `incomplete`: a part is
 * lost; a new relay would lock every node out. `unusable`: the system cannot read the folder.
 */
export class RelayKeysError extends Schema.TaggedError<RelayKeysError>()("RelayKeysError", {
  reason: Schema.Literal("exists", "absent", "incomplete", "unusable"),
  message: Schema.String
}) {}

/** The public keys of a relay. */
export interface RelayKeys {
  readonly authorityKey: NodeKey
  readonly tlsKey: NodeKey
}

const FILES = [AUTHORITY_KEY_FILE, TLS_KEY_FILE, DIRECTORY_FILE]

/**
 * Creates a new relay. If the folder holds any part of a relay, it changes nothing and fails with
 * `exists`.
 */
export const init = Effect.fn("RelayKeys.init")(function*(stateDir: string) {
  const present = yield* filesIn(stateDir)
  if (present.length > 0) {
    return yield* new RelayKeysError({
      reason: "exists",
      message: `${stateDir} has ${present.join(", ")} already; nothing was changed; choose another folder`
    })
  }
  return yield* Effect.tapError(make(stateDir), () => removeParts(stateDir))
})

/** Lets a second try find the empty folder that the first one found. */
const removeParts = (stateDir: string) =>
  Effect.promise(() =>
    Promise.all(FILES.map((file) => rm(join(stateDir, file), { force: true }).catch(() => undefined)))
  )

/**
 * Reads the keys at each start. If the folder holds no part of a relay, it creates one, but only if
 * `newIdentity` is set: a lost state or a disk that is not mounted looks like a first start, and
 * nodes refuse a relay with other keys. Fails with `incomplete` if a part is missing.
 */
export const ensure = Effect.fn("RelayKeys.ensure")(function*(stateDir: string, newIdentity: boolean) {
  const present = yield* filesIn(stateDir)
  if (present.length === 0) {
    if (newIdentity) return yield* StateDir.patiently(stateDir, isOfFiles, make(stateDir))
    return yield* new RelayKeysError({
      reason: "absent",
      message:
        `${stateDir} holds no relay: no keys and no directory. If this relay had nodes, mount the disk that holds its ` +
        "state, or restore it from a backup. For a new relay, start it once with: sallyport run --new-identity; " +
        "nodes of an earlier one must then enrol again"
    })
  }
  const missing = FILES.filter((file) => !present.includes(file))
  if (missing.length > 0) {
    return yield* new RelayKeysError({
      reason: "incomplete",
      message: `${stateDir} has ${present.join(", ")} but not ${missing.join(", ")}; restore it from a backup; ` +
        "or, if nodes may all enrol again, move the rest away, too, and start with --new-identity"
    })
  }
  return yield* read(stateDir)
})

/** Reads the public keys. This is safe while the relay is running. */
export const read = (stateDir: string): Effect.Effect<RelayKeys, Keys.KeyFileError> =>
  Effect.map(
    Effect.all([Keys.load(join(stateDir, AUTHORITY_KEY_FILE)), Keys.load(join(stateDir, TLS_KEY_FILE))]),
    ([authority, tls]) => ({ authorityKey: authority.publicKey, tlsKey: tls.publicKey })
  )

/** Returns how nodes recognise a relay with this configuration. Enrolment tokens contain it. */
export const trustOf = (
  config: { readonly behindProxy: unknown; readonly tls: unknown },
  keys: RelayKeys
): EnrolmentToken.RelayTrust =>
  config.behindProxy !== null
    ? { _tag: "Proxied" }
    : config.tls !== null
    ? { _tag: "Ca" }
    : { _tag: "Pin", key: keys.tlsKey }

/** Encodes the enrolment token that an administrator passes on. The text is a secret. */
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

/**
 * Creates the keys first and the directory last, because the directory completes the relay. If two
 * processes do this at once, both end with the same keys.
 */
const make = Effect.fnUntraced(function*(stateDir: string) {
  const authority = yield* Keys.loadOrCreate(join(stateDir, AUTHORITY_KEY_FILE))
  const tls = yield* Keys.loadOrCreate(join(stateDir, TLS_KEY_FILE))
  yield* Effect.provide(Directory, layerDirectory({ stateDir }))
  const keys: RelayKeys = { authorityKey: authority.publicKey, tlsKey: tls.publicKey }
  return keys
})

/** Whether the cause of the failure may end when the disk of the state directory works again. */
export const isOfFiles = (
  error: RelayKeysError | Keys.KeyFileError | DirectoryError | TurnSecretError
): boolean => error._tag === "TurnSecretError" || error.reason === "unusable" || error.reason === "full"

const filesIn = (stateDir: string) =>
  Effect.filter(FILES, (file) => StateFile.exists(join(stateDir, file))).pipe(
    Effect.mapError(({ message }) => new RelayKeysError({ reason: "unusable", message }))
  )
