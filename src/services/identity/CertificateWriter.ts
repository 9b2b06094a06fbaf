/**
 * Writes X.509 v3 certificates (RFC 5280) with an Ed25519 signature (RFC 8410). This module is slow
 * to load, so import it only when a certificate is to be written.
 */
// oxlint-disable-next-line import/no-unassigned-import -- the library does not load without it
import "reflect-metadata"
import * as x509 from "@peculiar/x509"
import { type KeyObject, webcrypto } from "node:crypto"
import { isIP } from "node:net"

/** The content of a certificate. */
export interface Parts {
  /** The private Ed25519 key that signs. */
  readonly signer: KeyObject
  readonly publicKey: KeyObject
  /** Serial number, 1 to 20 bytes. Its first two bits are set to 01. */
  readonly serial: Uint8Array
  /** Common name of the issuer. */
  readonly issuer: string
  /** Common name of the subject. */
  readonly subject: string
  /** First valid moment, cut to whole seconds. */
  readonly notBefore: Date
  /** Last valid moment, cut to whole seconds. */
  readonly notAfter: Date
  /**
   * The one name or IP literal that a TLS server uses this certificate for. `null` if it is not for
   * servers.
   */
  readonly serverFor: string | null
}

/** One certificate in both encodings. */
export interface Certificate {
  readonly der: Uint8Array
  readonly pem: string
}

const ED25519 = { name: "Ed25519" }

/**
 * Writes a certificate. The same parts give the same bytes. Rejects only if the signer is not a
 * private Ed25519 key.
 */
export const write = async (parts: Parts): Promise<Certificate> => {
  const pkcs8 = parts.signer.export({ format: "der", type: "pkcs8" })
  const certificate = await x509.X509CertificateGenerator.create({
    signingKey: await webcrypto.subtle.importKey("pkcs8", pkcs8, ED25519, false, ["sign"]),
    signingAlgorithm: ED25519,
    publicKey: parts.publicKey.export({ format: "der", type: "spki" }),
    serialNumber: positive(parts.serial).toString("hex"),
    issuer: commonName(parts.issuer),
    subject: commonName(parts.subject),
    notBefore: parts.notBefore,
    notAfter: parts.notAfter,
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      ...(parts.serverFor === null ? [] : forServer(parts.serverFor))
    ]
  })
  return { der: new Uint8Array(certificate.rawData), pem: `${certificate.toString("pem")}\n` }
}

const forServer = (host: string): Array<x509.Extension> => [
  new x509.BasicConstraintsExtension(false, undefined, true),
  new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
  new x509.SubjectAlternativeNameExtension([{ type: isIP(host) === 0 ? "dns" : "ip", value: host }])
]

/** Builds a name as a structure instead of text, so that nothing needs escaping. */
const commonName = (text: string): x509.JsonName => [{ CN: [text] }]

/** Makes the serial number positive (RFC 5280, section 4.1.2.2) and its encoded length constant. */
const positive = (serial: Uint8Array): Buffer => {
  const bytes = Buffer.from(serial)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes
}
