/** Ed25519 by WebCrypto. The private key cannot be taken out of the browser, not by this program either. */
import { fromBytes, type NodeKey, toBytes } from "../protocol/NodeKey.ts"

const ED25519 = "Ed25519"

/** As IndexedDB keeps it: a `CryptoKey` is stored as it is, and shows nothing of itself. */
export interface KeyPair {
  readonly publicKey: CryptoKey
  readonly privateKey: CryptoKey
}

/** Rejects with a NotSupportedError where the browser knows no Ed25519. */
export const generate = (): Promise<KeyPair> => crypto.subtle.generateKey(ED25519, false, ["sign", "verify"])

export const nodeKeyOf = async ({ publicKey }: KeyPair): Promise<NodeKey> =>
  fromBytes(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey)))

export const sign = async ({ privateKey }: KeyPair, message: Uint8Array): Promise<Uint8Array> =>
  new Uint8Array(await crypto.subtle.sign(ED25519, privateKey, new Uint8Array(message)))

/** `key`: one that is trusted already, as points of small order are not looked for. */
export const verify = async (key: NodeKey, message: Uint8Array, signature: Uint8Array): Promise<boolean> => {
  const imported = await crypto.subtle.importKey("raw", new Uint8Array(toBytes(key)), ED25519, false, ["verify"])
  return await crypto.subtle.verify(ED25519, imported, new Uint8Array(signature), new Uint8Array(message))
}
