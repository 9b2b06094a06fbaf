/**
 * Ed25519 keys through WebCrypto. The private key cannot be exported from the browser, not even by
 * this program.
 */
import { fromBytes, type NodeKey, toBytes } from "../protocol/trust/NodeKey.ts"

const ED25519 = "Ed25519"

/** A key pair, as IndexedDB stores it. A stored `CryptoKey` does not reveal the key itself. */
export interface KeyPair {
  readonly publicKey: CryptoKey
  readonly privateKey: CryptoKey
}

/** Makes a key pair. Rejects with a `NotSupportedError` if the browser has no Ed25519. */
export const generate = (): Promise<KeyPair> => crypto.subtle.generateKey(ED25519, false, ["sign", "verify"])

export const nodeKeyOf = async ({ publicKey }: KeyPair): Promise<NodeKey> =>
  fromBytes(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey)))

export const sign = async ({ privateKey }: KeyPair, message: Uint8Array): Promise<Uint8Array> =>
  new Uint8Array(await crypto.subtle.sign(ED25519, privateKey, new Uint8Array(message)))

/**
 * Verifies a signature. `key` must be trusted already, because points of small order are not
 * rejected.
 */
export const verify = async (key: NodeKey, message: Uint8Array, signature: Uint8Array): Promise<boolean> => {
  const imported = await crypto.subtle.importKey("raw", new Uint8Array(toBytes(key)), ED25519, false, ["verify"])
  return await crypto.subtle.verify(ED25519, imported, new Uint8Array(signature), new Uint8Array(message))
}
