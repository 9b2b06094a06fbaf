/**
 * Certificates: the relay's short-lived leaves under its long-term key, and the certificate that
 * carries a node's own key.
 *
 * No statement in a certificate is trusted. Only the key in it counts, or the key that signed it.
 */
import { Effect, Either, Redacted } from "effect"
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import { fromBytes, type NodeKey, toBytes } from "../../protocol/trust/NodeKey.ts"
import { randomBytes, rawPublicKey, sha256, spkiOf } from "../host/Crypto.ts"
import * as Printable from "../telemetry/Printable.ts"
import type * as CertificateWriter from "./CertificateWriter.ts"

const DAY_MS = 86_400_000
/** How far a certificate's start is set into the past, for nodes whose clock is behind. */
const BACKDATE_MS = DAY_MS
/**
 * Time from the first to the last valid moment. Browsers accept a certificate by its hash only if
 * this is at most 14 days.
 */
const LEAF_LIFE_MS = LIFETIMES.certificate * 1000
const SERIAL_BYTES = 16

/** A certificate for TLS servers, with its private key. */
export interface Leaf {
  readonly cert: string
  /** Private key, as PEM. */
  readonly key: Redacted.Redacted
  /** SHA-256 of the DER, 32 bytes. */
  readonly sha256: Uint8Array
  /** Last valid moment, in epoch milliseconds. */
  readonly notAfter: number
}

/**
 * Issues a P-256 certificate for `host` (a name or an IP literal), signed by the relay's Ed25519
 * key.
 */
export const issueLeaf = Effect.fn("Pki.issueLeaf")(function*(
  options: { readonly issuer: KeyObject; readonly host: string; readonly nowMs: number }
) {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const notBefore = options.nowMs - BACKDATE_MS
  const notAfter = notBefore + LEAF_LIFE_MS
  const { der, pem } = yield* write({
    signer: options.issuer,
    publicKey,
    serial: randomBytes(SERIAL_BYTES),
    issuer: RELAY_ISSUER,
    subject: "sallyport relay leaf",
    notBefore: new Date(notBefore),
    notAfter: new Date(notAfter),
    serverFor: options.host
  })
  const leaf: Leaf = {
    cert: pem,
    key: Redacted.make(privateKey.export({ format: "pem", type: "pkcs8" }).toString()),
    sha256: sha256(der),
    notAfter: Math.floor(notAfter / 1000) * 1000 // certificates have whole seconds
  }
  return leaf
})

/**
 * Creates the certificate that carries a node's Ed25519 key, as PEM. It is always the same for the
 * same key and never expires, because peers compare only the key.
 */
export const selfSigned = Effect.fn("Pki.selfSigned")(function*(privateKey: KeyObject) {
  const publicKey = createPublicKey(privateKey)
  const { pem } = yield* write({
    signer: privateKey,
    publicKey,
    serial: sha256(publicKey.export({ format: "der", type: "spki" })).subarray(0, SERIAL_BYTES),
    issuer: "sallyport node",
    subject: "sallyport node",
    notBefore: new Date("2020-01-01T00:00:00Z"),
    // "no well-defined expiration date" (RFC 5280, section 4.1.2.5)
    notAfter: new Date("9999-12-31T23:59:59Z"),
    serverFor: null
  })
  return pem
})

/**
 * Writes a certificate. The library is loaded with the first one: loading it takes longer than most
 * threads take to start, and few threads write any.
 */
const write = (parts: CertificateWriter.Parts) =>
  Effect.promise(async () => (await import("./CertificateWriter.ts")).write(parts))

/** Reason why a node refuses the relay's certificate. */
export type LeafProblem = {
  readonly _tag: "LeafProblem"
  readonly reason: "malformed" | "foreign"
  readonly message: string
}

/**
 * Checks that the pinned relay issued this certificate (DER). Never throws.
 *
 * It ignores the dates. The relay issues a new certificate every few days, and a node whose clock
 * is wrong must still reach its relay, because it learns the time there.
 */
export const checkLeaf = (der: Uint8Array, pin: NodeKey): Either.Either<void, LeafProblem> => {
  const leaf = parse(der)
  if (leaf === null) return problem("malformed", "the relay's certificate cannot be read")
  if (!isSignedBy(leaf, pin)) {
    return problem(
      "foreign",
      "this is not the relay that the token came from, or something between intercepts TLS; check the relay's host, or enrol again if the relay has a new identity"
    )
  }
  return Either.void
}

/**
 * The names in a certificate, shortened and made printable, because anybody may have written them.
 */
export interface Shown {
  readonly subject: string
  readonly issuer: string
  /**
   * Whether the issuer has the form of a relay's name. The key may be another relay's nevertheless.
   */
  readonly isOfRelay: boolean
}

/** Reads the names in a certificate (DER), for messages. Never throws. */
export const describe = (der: Uint8Array): Shown => {
  const leaf = parse(der)
  const nameOf = (lines: string | undefined) => {
    const name = /^(?:CN|O)=(.*)$/m.exec(lines ?? "")?.[1] ?? ""
    return name === "" ? "nobody by name" : Printable.text(name.slice(0, MAX_SHOWN_CHARS))
  }
  const names = /DNS:([^,\s"]+)/.exec(leaf?.subjectAltName ?? "")?.[1]
  return {
    subject: names === undefined ? nameOf(leaf?.subject) : Printable.text(names.slice(0, MAX_SHOWN_CHARS)),
    issuer: nameOf(leaf?.issuer),
    isOfRelay: leaf !== null && leaf.issuer === `CN=${RELAY_ISSUER}`
  }
}

const RELAY_ISSUER = "sallyport relay"
/** Longest name that is shown, in characters. A certificate may have one of 64 KiB. */
const MAX_SHOWN_CHARS = 80

/** Error when a certificate holds no Ed25519 key. */
export type BadCertificate = { readonly _tag: "BadCertificate"; readonly message: string }

/**
 * Returns the Ed25519 key in a peer's certificate (DER). The TLS handshake must have proved that
 * the peer holds the private key.
 */
export const publicKeyOfCert = (der: Uint8Array): Either.Either<NodeKey, BadCertificate> => {
  const parsed = parse(der)
  const raw = parsed === null ? null : rawKeyOf(parsed)
  return raw === null
    ? Either.left({ _tag: "BadCertificate", message: "the peer's certificate holds no Ed25519 key" })
    : Either.right(fromBytes(raw))
}

/** Error when the operator's certificate and key cannot be used. */
export type BadMaterial = { readonly _tag: "BadMaterial"; readonly message: string }

/** Reads an operator's certificate chain and key, and checks that they belong together. */
export const fromPem = (cert: string, key: string): Either.Either<Leaf, BadMaterial> => {
  try {
    const first = new X509Certificate(cert)
    if (!first.checkPrivateKey(createPrivateKey(key))) {
      return Either.left({ _tag: "BadMaterial", message: "the key does not belong to the certificate" })
    }
    const notAfter = Date.parse(first.validTo)
    return Either.right({ cert, key: Redacted.make(key), sha256: sha256(first.raw), notAfter })
  } catch {
    return Either.left({ _tag: "BadMaterial", message: "expected a PEM certificate chain and an unencrypted PEM key" })
  }
}

const problem = (reason: LeafProblem["reason"], message: string) =>
  Either.left<LeafProblem>({ _tag: "LeafProblem", reason, message })

/** Reads exactly one certificate. Returns `null` for anything else. */
const parse = (der: Uint8Array): X509Certificate | null => {
  try {
    const parsed = new X509Certificate(der)
    // also refuses PEM, and bytes after the certificate
    return parsed.raw.equals(der) ? parsed : null
  } catch {
    return null
  }
}

const rawKeyOf = (parsed: X509Certificate): Uint8Array | null => {
  try {
    return rawPublicKey(parsed.publicKey)
  } catch {
    return null // this Node cannot read this kind of key
  }
}

const isSignedBy = (leaf: X509Certificate, pin: NodeKey): boolean => {
  try {
    return leaf.verify(createPublicKey({ key: spkiOf(toBytes(pin)), format: "der", type: "spki" }))
  } catch {
    return false
  }
}
