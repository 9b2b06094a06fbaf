/** What tests in a real browser share: Chromium, and a certificate that only it trusts. */
// oxlint-disable-next-line import/no-unassigned-import -- before the library, which does not load without it
import "reflect-metadata"
import * as x509 from "@peculiar/x509"
import { createHash, webcrypto } from "node:crypto"
import { writeFileSync } from "node:fs"
import { join } from "node:path"

export const CHROMIUM = "/usr/bin/chromium"
const P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }
const DAY_MS = 86_400_000

/** Arguments for a Chromium that trusts an authority of a test's own, by its key, over TLS and over QUIC. */
export const trust = (
  spki: string
) => [`--ignore-certificate-errors-spki-list=${spki}`, "--webtransport-developer-mode"]

/** An authority, and a certificate for one address under it. `authority`: the file of its own certificate. */
export const certify = async (dir: string, name: string, address = "127.0.0.1") => {
  const make = () => webcrypto.subtle.generateKey(P256, true, ["sign", "verify"])
  const [authority, leaf] = await Promise.all([make(), make()])
  const dates = { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + 30 * DAY_MS) }
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    ...dates,
    name: `CN=${name}`,
    keys: authority,
    signingAlgorithm: P256,
    serialNumber: "01",
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)]
  })
  const certificate = await x509.X509CertificateGenerator.create({
    ...dates,
    subject: "CN=relay",
    issuer: root.subject,
    publicKey: leaf.publicKey,
    signingKey: authority.privateKey,
    signingAlgorithm: P256,
    serialNumber: "02",
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.SubjectAlternativeNameExtension([{ type: "ip", value: address }])
    ]
  })
  const key = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", leaf.privateKey)).toString("base64")
  const files = { cert: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) }
  const authorityFile = join(dir, `${name}.ca.crt`)
  writeFileSync(authorityFile, `${root.toString("pem")}\n`)
  writeFileSync(files.cert, `${certificate.toString("pem")}\n${root.toString("pem")}\n`)
  writeFileSync(files.key, `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`, { mode: 0o600 })
  const spki = createHash("sha256").update(new Uint8Array(root.publicKey.rawData)).digest("base64")
  return { files, spki, authority: authorityFile }
}
