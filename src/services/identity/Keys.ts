/**
 * Ed25519 keys in files (PKCS#8 PEM, mode 0600), and the identity of a node made from one. Private
 * keys are never logged.
 */
import { Context, Effect, Layer, Option, Redacted, Schema } from "effect"
import { createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto"
import { join } from "node:path"
import { fromBytes, type NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as Crypto from "../host/Crypto.ts"
import * as StateFile from "../host/StateFile.ts"
import * as Pki from "./Pki.ts"

/**
 * Error when a key file cannot be used. `exposed`: other users can access it, so they may know the
 * key. `damaged`: it holds no Ed25519 key.
 */
export class KeyFileError extends Schema.TaggedError<KeyFileError>()("KeyFileError", {
  path: Schema.String,
  reason: Schema.Literal("missing", "exposed", "damaged", "unusable"),
  message: Schema.String
}) {}

/**
 * A loaded key. The private part cannot be printed by accident, because a `KeyObject` shows nothing
 * of its content.
 */
export interface SigningKey {
  readonly publicKey: NodeKey
  readonly privateKey: KeyObject
}

/** Loads a key. Fails with `missing` if there is no file. */
export const load = (path: string): Effect.Effect<SigningKey, KeyFileError> =>
  Effect.flatMap(read(path), (found) =>
    Option.match(found, {
      onNone: () =>
        refuse(path, "missing", `there is no key ${path}; restore it from a backup, since a new one is a new identity`),
      onSome: (file) => decode(path, file)
    }))

/**
 * Loads the key, or creates it if there is no file. If two processes create it at once, both get
 * the same key.
 */
export const loadOrCreate = (path: string): Effect.Effect<SigningKey, KeyFileError> =>
  Effect.flatMap(read(path), (found) =>
    Option.match(found, {
      onNone: () => Effect.zipRight(create(path), load(path)),
      onSome: (file) => decode(path, file)
    }))

/** Creates a key file. Returns `false` if there is one already; that one is kept. */
const create = (path: string): Effect.Effect<boolean, KeyFileError> =>
  Effect.sync(() => generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString()).pipe(
    Effect.flatMap((text) => StateFile.create(path, text)),
    Effect.mapError(unusable)
  )

/** Adds the public key to a private one. `null` if it is no Ed25519 private key. */
export const fromPrivateKey = (privateKey: KeyObject): SigningKey | null => {
  const raw = Crypto.rawPublicKey(privateKey)
  return raw === null || privateKey.type !== "private" ? null : { publicKey: fromBytes(raw), privateKey }
}

/** The identity of this node: its key, and what the key signs. */
export class NodeIdentity extends Context.Tag("sallyport/services/NodeIdentity")<NodeIdentity, {
  readonly key: NodeKey
  readonly sign: (message: Uint8Array) => Uint8Array
  /** Self-signed certificate that carries `key`, as PEM, for QUIC. It is created on first use. */
  readonly certificate: Effect.Effect<string>
  readonly privateKey: Redacted.Redacted
}>() {}

/** Name of the key file in a node's state directory. */
export const NODE_KEY_FILE = "node.key"

const identityOf = Effect.fnUntraced(function*({ privateKey, publicKey }: SigningKey) {
  return NodeIdentity.of({
    key: publicKey,
    sign: (message) => Crypto.sign(privateKey, message),
    certificate: yield* Effect.cached(Pki.selfSigned(privateKey)),
    privateKey: Redacted.make(privateKey.export({ format: "pem", type: "pkcs8" }).toString())
  })
})

/** Loads the node's key from the state directory. Fails with `missing` if there is none. */
export const loadIdentity = (stateDir: string): Effect.Effect<typeof NodeIdentity.Service, KeyFileError> =>
  Effect.flatMap(load(join(stateDir, NODE_KEY_FILE)), identityOf)

/** Loads the node's key from the state directory, and creates it at the first start. */
export const layerNodeIdentity = (options: { readonly stateDir: string }): Layer.Layer<NodeIdentity, KeyFileError> =>
  Layer.effect(NodeIdentity, Effect.flatMap(loadOrCreate(join(options.stateDir, NODE_KEY_FILE)), identityOf))

const read = (path: string) => Effect.mapError(StateFile.read(path), unusable)

const decode = (path: string, file: StateFile.Found): Effect.Effect<SigningKey, KeyFileError> => {
  if (file.exposed) {
    return refuse(
      path,
      "exposed",
      `other users of this machine can read or change ${path} (mode ${file.mode}); run: chmod 600 ${path}`
    )
  }
  const key = parse(file.text)
  return key === null
    ? refuse(path, "damaged", `${path} is no Ed25519 private key in PEM; restore it from a backup`)
    : Effect.succeed(key)
}

const parse = (text: string): SigningKey | null => {
  try {
    return fromPrivateKey(createPrivateKey(text))
  } catch {
    return null
  }
}

const refuse = (path: string, reason: KeyFileError["reason"], message: string) =>
  Effect.fail(new KeyFileError({ path, reason, message }))

const unusable = ({ message, path }: StateFile.StateFileError) =>
  new KeyFileError({ path, reason: "unusable", message })
