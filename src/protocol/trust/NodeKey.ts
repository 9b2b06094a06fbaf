/**
 * A node's identity: its Ed25519 public key, 32 bytes, written as 43 characters of base64url. Keys
 * of other parties have the same form.
 */
import { Either, Encoding, Schema } from "effect"

export const BYTES = 32

/**
 * A public key as text. Each key has only one text, because the two spare bits of the last
 * character are zero.
 */
export const NodeKey = Schema.String.pipe(
  Schema.pattern(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/, {
    message: () => "expected a public key: 43 characters of base64url"
  }),
  Schema.brand("NodeKey")
)
export type NodeKey = typeof NodeKey.Type

/** Encodes a key. Throws a `RangeError` for anything but 32 bytes. */
export const fromBytes = (bytes: Uint8Array): NodeKey => {
  if (bytes.length !== BYTES) throw new RangeError(`a key has ${BYTES} bytes, not ${bytes.length}`)
  return Encoding.encodeBase64Url(bytes) as NodeKey
}

/** Decodes a key to its 32 bytes. */
export const toBytes = (key: NodeKey): Uint8Array => Either.getOrThrow(Encoding.decodeBase64Url(key))

/** Checks that a text is a node key. Fails with the reason if it is not. */
export const parse = Schema.decodeUnknownEither(NodeKey)
