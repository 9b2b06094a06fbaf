import { Either } from "effect"
import { generateKeyPairSync, webcrypto } from "node:crypto"
import { fromPem } from "../../../src/services/identity/Pki.ts"

/** An authority that a system may trust, and its certificate for localhost. */
export const makePublicCa = async () => {
  await import("reflect-metadata")
  const x509 = await import("@peculiar/x509")
  x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0])
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" }
  const dates = { notBefore: new Date(Date.now() - 3_600_000), notAfter: new Date(Date.now() + 86_400_000) }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"])
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=public authority",
    keys,
    signingAlgorithm: algorithm,
    ...dates,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true)
    ]
  })
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const leaf = await x509.X509CertificateGenerator.create({
    subject: "CN=localhost",
    issuer: root.subject,
    publicKey: await webcrypto.subtle.importKey(
      "spki",
      publicKey.export({ format: "der", type: "spki" }),
      algorithm,
      true,
      ["verify"]
    ),
    signingKey: keys.privateKey,
    signingAlgorithm: algorithm,
    ...dates,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: "dns", value: "localhost" }])]
  })
  const pem = privateKey.export({ format: "pem", type: "pkcs8" }).toString()
  return { ca: root.toString("pem"), leaf: Either.getOrThrow(fromPem(`${leaf.toString("pem")}\n`, pem)) }
}
