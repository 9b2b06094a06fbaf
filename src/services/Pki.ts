/**
 * Certificates: the relay's short-lived leaves under its long-term key, and the certificate in which a node shows its own key.
 * Nobody's certificate is believed for what it says; only for the key that it holds, or that signed it.
 */
import { Effect, Either, Redacted } from "effect"
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto"
import { LIFETIMES } from "../protocol/Lifetimes.ts"
import { fromBytes, type NodeKey, toBytes } from "../protocol/NodeKey.ts"
import type * as CertificateWriter from "./CertificateWriter.ts"
import { randomBytes, rawPublicKey, sha256, spkiOf } from "./Crypto.ts"
import * as Printable from "./telemetry/Printable.ts"

const DAY_MS = 86_400_000
/** For nodes whose clock is behind. */
const BACKDATE_MS = DAY_MS
/** From the first to the last valid moment; browsers accept a certificate by its hash only up to 14 days. */
const LEAF_LIFE_MS = LIFETIMES.certificate * 1000
const SERIAL_BYTES = 16

export interface Leaf {
  readonly cert: string
  readonly key: Redacted.Redacted
  /** Of the DER, 32 bytes. */
  readonly sha256: Uint8Array
  /** Epoch milliseconds. */
  readonly notAfter: number
}

/** A P-256 certificate for `host` (a name or an IP literal), signed by the relay's Ed25519 key. */
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
    notAfter: Math.floor(notAfter / 1000) * 1000 // certificates know whole seconds
  }
  return leaf
})

/**
 * PEM of the certificate in which a node shows its Ed25519 key. Always the same for the same key, and without an end, since
 * peers compare the key and nothing else.
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
    notAfter: new Date("9999-12-31T23:59:59Z"), // "no well-defined expiration date" (RFC 5280, section 4.1.2.5)
    serverFor: null
  })
  return pem
})

/** Loaded at the first certificate: the library takes longer to load than most threads take to start, and few write any. */
const write = (parts: CertificateWriter.Parts) =>
  Effect.promise(async () => (await import("./CertificateWriter.ts")).write(parts))

export type LeafProblem = {
  readonly _tag: "LeafProblem"
  readonly reason: "malformed" | "foreign"
  readonly message: string
}

/**
 * Whether the relay that is pinned issued this certificate (DER). Its dates are not looked at: the relay makes a new one every
 * few days, and a node whose clock is wrong must still find its relay, from which it learns the time. Never throws.
 */
export const checkLeaf = (der: Uint8Array, pin: NodeKey): Either.Either<void, LeafProblem> => {
  const leaf = parse(der)
  if (leaf === null) return problem("malformed", "the relay's certificate cannot be read")
  if (!isSignedBy(leaf, pin)) {
    return problem(
      "foreign",
      "this is not the relay that the token came from, or something between intercepts TLS; check the relay's host, or enrol again if the relay was made anew"
    )
  }
  return Either.void
}

/** What a certificate says of itself, cut and made printable: anybody may have written it. */
export interface Shown {
  readonly subject: string
  readonly issuer: string
  /** Whether it is written as relays write theirs, although with another key. */
  readonly isOfRelay: boolean
}

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
/** Longest name that is shown, of the 64 KiB that one may have. */
const MAX_SHOWN_CHARS = 80

export type BadCertificate = { readonly _tag: "BadCertificate"; readonly message: string }

/** The key that a peer's certificate (DER) shows; Ed25519 only. The handshake must have proved that the peer holds it. */
export const publicKeyOfCert = (der: Uint8Array): Either.Either<NodeKey, BadCertificate> => {
  const parsed = parse(der)
  const raw = parsed === null ? null : rawKeyOf(parsed)
  return raw === null
    ? Either.left({ _tag: "BadCertificate", message: "the peer's certificate holds no Ed25519 key" })
    : Either.right(fromBytes(raw))
}

export type BadMaterial = { readonly _tag: "BadMaterial"; readonly message: string }

/** An operator's certificate chain and key, checked to belong together. */
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

/** Null for anything but exactly one certificate. */
const parse = (der: Uint8Array): X509Certificate | null => {
  try {
    const parsed = new X509Certificate(der)
    return parsed.raw.equals(der) ? parsed : null // also refuses PEM, and what follows the certificate
  } catch {
    return null
  }
}

const rawKeyOf = (parsed: X509Certificate): Uint8Array | null => {
  try {
    return rawPublicKey(parsed.publicKey)
  } catch {
    return null // a key of a kind that this Node cannot read
  }
}

const isSignedBy = (leaf: X509Certificate, pin: NodeKey): boolean => {
  try {
    return leaf.verify(createPublicKey({ key: spkiOf(toBytes(pin)), format: "der", type: "spki" }))
  } catch {
    return false
  }
}
