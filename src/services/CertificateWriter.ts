/** Writes X.509 v3 certificates (RFC 5280) that an Ed25519 key signs (RFC 8410). Slow to load: import it when one is to be made. */
// oxlint-disable-next-line import/no-unassigned-import -- before the library, which does not load without it
import "reflect-metadata"
import * as x509 from "@peculiar/x509"
import { type KeyObject, webcrypto } from "node:crypto"
import { isIP } from "node:net"

export interface Parts {
  /** Private, Ed25519. */
  readonly signer: KeyObject
  readonly publicKey: KeyObject
  /** 1 to 20 bytes; its first two bits are set to 01. */
  readonly serial: Uint8Array
  /** Common names. */
  readonly issuer: string
  readonly subject: string
  /** Cut to whole seconds. */
  readonly notBefore: Date
  readonly notAfter: Date
  /** The one name or IP literal that a TLS server shows this certificate for; null: it is for no server. */
  readonly serverFor: string | null
}

export interface Certificate {
  readonly der: Uint8Array
  readonly pem: string
}

const ED25519 = { name: "Ed25519" }

/** Gives the same bytes for the same parts. Rejects only for a signer that is no private Ed25519 key. */
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

/** As structure, not as text: a name needs no escapes then. */
const commonName = (text: string): x509.JsonName => [{ CN: [text] }]

/** A serial number is positive (RFC 5280, section 4.1.2.2), and of the same length each time. */
const positive = (serial: Uint8Array): Buffer => {
  const bytes = Buffer.from(serial)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes
}
