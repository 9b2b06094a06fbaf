/**
 * A document as it travels: the exact bytes that were signed, and the authority's Ed25519 signature
 * over them.
 */
import { Either, Encoding, ParseResult, Schema } from "effect"

/** Length of an Ed25519 signature, in bytes. */
export const SIGNATURE_BYTES = 64
/** Longest payload, in bytes. A grant and a ticket fit together into one 64 KiB frame. */
export const MAX_PAYLOAD_BYTES = 40 * 1024

/** Payload and signature of a document. */
export const Signed = Schema.Struct({
  payload: Schema.Uint8ArrayFromSelf.pipe(
    Schema.filter((bytes) => bytes.length <= MAX_PAYLOAD_BYTES || "the document is too long")
  ),
  signature: Schema.Uint8ArrayFromSelf.pipe(
    Schema.filter((bytes) => bytes.length === SIGNATURE_BYTES || `a signature has ${SIGNATURE_BYTES} bytes`)
  )
})
export type Signed = typeof Signed.Type

const utf8 = new TextEncoder()

/**
 * Returns the bytes that are signed. They begin with the kind of the document, so that a document
 * of one kind cannot be used as another.
 */
export const signedBytes = (kind: string, payload: Uint8Array): Uint8Array => {
  const head = utf8.encode(`sallyport/${kind}/1\0`)
  const all = new Uint8Array(head.length + payload.length)
  all.set(head)
  all.set(payload, head.length)
  return all
}

/** Encodes a signed document: the signature, then the payload. */
export const toBytes = (signed: Signed): Uint8Array => {
  const all = new Uint8Array(SIGNATURE_BYTES + signed.payload.length)
  all.set(signed.signature)
  all.set(signed.payload, SIGNATURE_BYTES)
  return all
}

/**
 * Splits a signed document into payload and signature. It does not verify the signature. Fails if
 * the bytes are too short for a signature, or too many.
 */
export const fromBytes = (bytes: Uint8Array): Either.Either<Signed, string> => {
  if (bytes.length < SIGNATURE_BYTES) return Either.left("too short for a signed document")
  if (bytes.length > SIGNATURE_BYTES + MAX_PAYLOAD_BYTES) return Either.left("too long for a signed document")
  return Either.right({ signature: bytes.slice(0, SIGNATURE_BYTES), payload: bytes.slice(SIGNATURE_BYTES) })
}

/** A signed document as base64url text, for files. */
export const SignedText = Schema.transformOrFail(Schema.String, Schema.typeSchema(Signed), {
  strict: true,
  decode: (text, _, ast) =>
    Encoding.decodeBase64Url(text).pipe(
      Either.mapLeft(() => "not base64url"),
      Either.flatMap(fromBytes),
      Either.mapLeft((problem) => new ParseResult.Type(ast, "", problem))
    ),
  encode: (signed) => Either.right(Encoding.encodeBase64Url(toBytes(signed)))
})
