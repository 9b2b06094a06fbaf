/**
 * Certificates: the relay's short-lived leaves under its long-term key, and the certificate in which a node shows its own key.
 * Nobody's certificate is believed for what it says; only for the key that it holds, or that signed it.
 */
import { Either, Redacted } from "effect"
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate
} from "node:crypto"
import * as Der from "../protocol/Der.ts"
import * as IpBytes from "../protocol/IpBytes.ts"
import { fromBytes, type NodeKey, toBytes } from "../protocol/NodeKey.ts"
import { rawPublicKey, spkiOf } from "./Crypto.ts"

const DAY_MS = 86_400_000
/** For nodes whose clock is behind. */
export const BACKDATE_MS = DAY_MS
/** From the first to the last valid moment; browsers accept a certificate by its hash only up to 14 days. */
export const LEAF_LIFE_MS = 13 * DAY_MS

export interface Leaf {
  readonly cert: string
  readonly key: Redacted.Redacted
  /** Of the DER, 32 bytes. */
  readonly sha256: Uint8Array
  /** Epoch milliseconds. */
  readonly notAfter: number
}

const ED25519 = Der.sequence(Der.oid("1.3.101.112"))

/** A P-256 certificate for `host` (a name or an IP literal), signed by the relay's Ed25519 key. */
export const issueLeaf = (
  options: { readonly issuer: KeyObject; readonly host: string; readonly nowMs: number }
): Leaf => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const notBefore = options.nowMs - BACKDATE_MS
  const notAfter = notBefore + LEAF_LIFE_MS
  const der = certificate({
    signer: options.issuer,
    spki: publicKey.export({ format: "der", type: "spki" }),
    serial: randomBytes(16),
    issuer: "sallyport relay",
    subject: "sallyport relay leaf",
    notBefore: new Date(notBefore).toISOString(),
    notAfter: new Date(notAfter).toISOString(),
    extensions: [
      extension("2.5.29.19", Der.sequence(), true), // basicConstraints: no authority
      extension("2.5.29.15", Der.bits(Uint8Array.of(0x80), 7), true), // keyUsage: digitalSignature
      extension("2.5.29.37", Der.sequence(Der.oid("1.3.6.1.5.5.7.3.1"))), // extKeyUsage: serverAuth
      extension("2.5.29.17", Der.sequence(altName(options.host)))
    ]
  })
  return {
    cert: pem(der),
    key: Redacted.make(privateKey.export({ format: "pem", type: "pkcs8" }).toString()),
    sha256: sha256Of(der),
    notAfter: Math.floor(notAfter / 1000) * 1000
  }
}

/**
 * PEM of the certificate in which a node shows its Ed25519 key. Always the same for the same key, and without an end, since
 * peers compare the key and nothing else.
 */
export const selfSigned = (privateKey: KeyObject): string => {
  const spki = createPublicKey(privateKey).export({ format: "der", type: "spki" })
  return pem(certificate({
    signer: privateKey,
    spki,
    serial: sha256Of(spki).subarray(0, 16),
    issuer: "sallyport node",
    subject: "sallyport node",
    notBefore: "2020-01-01T00:00:00Z",
    notAfter: "9999-12-31T23:59:59Z", // "no well-defined expiration date" (RFC 5280, section 4.1.2.5)
    extensions: [extension("2.5.29.15", Der.bits(Uint8Array.of(0x80), 7), true)]
  }))
}

export type LeafProblem = {
  readonly _tag: "LeafProblem"
  readonly reason: "malformed" | "foreign" | "not_yet_valid" | "expired"
  readonly message: string
}

/** Whether the relay that is pinned issued this certificate (DER), and for now. Never throws. */
export const checkLeaf = (der: Uint8Array, pin: NodeKey, nowMs: number): Either.Either<void, LeafProblem> => {
  const leaf = parse(der)
  if (leaf === null) return problem("malformed", "the relay's certificate cannot be read")
  if (!isSignedBy(leaf, pin)) {
    return problem(
      "foreign",
      "this is not the relay that the token came from, or something between intercepts TLS; check the relay's host, or enrol again if the relay was made anew"
    )
  }
  // Written so that a date which is none fails.
  if (!(nowMs >= Date.parse(leaf.validFrom))) {
    return problem("not_yet_valid", "the relay's certificate is from the future; set the clock of this machine")
  }
  if (!(nowMs < Date.parse(leaf.validTo))) {
    return problem("expired", "the relay's certificate has expired; set the clocks of this machine and of the relay")
  }
  return Either.void
}

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
    return Either.right({ cert, key: Redacted.make(key), sha256: sha256Of(first.raw), notAfter })
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

interface Parts {
  readonly signer: KeyObject
  readonly spki: Uint8Array
  readonly serial: Uint8Array
  readonly issuer: string
  readonly subject: string
  /** ISO 8601, UTC. */
  readonly notBefore: string
  readonly notAfter: string
  readonly extensions: ReadonlyArray<Uint8Array>
}

/** DER of an X.509 v3 certificate (RFC 5280, section 4.1), signed with Ed25519 (RFC 8410). */
const certificate = (parts: Parts): Uint8Array => {
  const serial = Uint8Array.from(parts.serial)
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40 // positive, and never shorter
  const body = Der.sequence(
    Der.explicit(0, Der.integer(Uint8Array.of(2))),
    Der.integer(serial),
    ED25519,
    commonName(parts.issuer),
    Der.sequence(Der.time(parts.notBefore), Der.time(parts.notAfter)),
    commonName(parts.subject),
    parts.spki,
    Der.explicit(3, Der.sequence(...parts.extensions))
  )
  return Der.sequence(body, ED25519, Der.bits(sign(null, body, parts.signer)))
}

const commonName = (text: string) => Der.sequence(Der.set(Der.sequence(Der.oid("2.5.4.3"), Der.utf8(text))))

const extension = (oid: string, value: Uint8Array, critical = false) =>
  Der.sequence(Der.oid(oid), ...(critical ? [Der.boolean(true)] : []), Der.octets(value))

/** dNSName or iPAddress (RFC 5280, section 4.2.1.6). */
const altName = (host: string): Uint8Array => {
  const bytes = new Uint8Array(16)
  const length = IpBytes.parse(host, bytes)
  return length === 0 ? Der.implicit(2, new TextEncoder().encode(host)) : Der.implicit(7, bytes.subarray(0, length))
}

const sha256Of = (bytes: Uint8Array): Uint8Array => Uint8Array.from(createHash("sha256").update(bytes).digest())

const pem = (der: Uint8Array): string => {
  const lines = Buffer.from(der).toString("base64").replace(/.{1,64}/g, "$&\n")
  return `-----BEGIN CERTIFICATE-----\n${lines}-----END CERTIFICATE-----\n`
}
