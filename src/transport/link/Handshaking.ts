/**
 * The server's side of the handshake over a link. Bytes that follow the handshake stay on the link,
 * unread.
 */
import * as LinkHandshake from "../../protocol/relay/LinkHandshake.ts"
import { fromBytes, type NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import { BrokenHandshake, hear, RefusedByServer, say } from "../../session/ClientHandshake.ts"
import type { Link } from "../../session/Link.ts"

/** Identity that a client claims. Its signature over this link has been verified. */
export interface Claims {
  readonly nodeKey: NodeKey
  readonly purpose: LinkHandshake.Purpose
  readonly enrol?: LinkHandshake.Enrol
  /** SHA-256 of the certificate that the client saw. */
  readonly certSha256: Uint8Array
}

/**
 * Runs the handshake up to the verified signature. The caller then sends `welcome` or `refuse`.
 * `certHashes` are the certificates that a client may have seen: the current one and the previous
 * one. Rejects with `RefusedByServer`, `BrokenHandshake` or `LinkEnded`.
 */
export const asServer = async (
  link: Link,
  options: {
    readonly purpose: LinkHandshake.Purpose
    readonly certHashes: ReadonlyArray<Uint8Array>
    /** Same as in the Challenge. */
    readonly endorsements: ReadonlyArray<Uint8Array>
  }
): Promise<Claims> => {
  const { certHashes, endorsements, purpose } = options
  const hello = await hear(link, LinkHandshake.MAX_CLIENT_BYTES, "Hello")
  if (hello.version !== LinkHandshake.VERSION) {
    throw new RefusedByServer(
      "version",
      `this relay speaks version ${LinkHandshake.VERSION}; run the same version on both sides`
    )
  }
  if (hello.purpose !== purpose) throw new BrokenHandshake(`purpose ${hello.purpose} on the path of ${purpose}`)
  const nonce = Crypto.randomBytes(LinkHandshake.NONCE_BYTES)
  await say(link, { _tag: "Challenge", nonce, endorsements })
  const auth = await hear(link, LinkHandshake.MAX_CLIENT_BYTES, "Auth")
  const certSha256 = certHashes.find((hash) =>
    Crypto.verify(auth.nodeKey, LinkHandshake.signedBytes(purpose, nonce, hash), auth.signature)
  )
  if (certSha256 === undefined) {
    throw new RefusedByServer(
      "bad_signature",
      "the signature is not of this link: something between intercepts TLS, or the node's key file was changed"
    )
  }
  const nodeKey = fromBytes(auth.nodeKey)
  return { nodeKey, purpose, certSha256, ...(auth.enrol !== undefined && { enrol: auth.enrol }) }
}

/** Admits the client. `body` is the content of the Welcome. */
export const welcome = (link: Link, body: Uint8Array): Promise<void> => say(link, { _tag: "Welcome", body })

/** Refuses the client and sends it `code` and `message`. Texts that are too long are cut. */
export const refuse = (link: Link, code: string, message: string): Promise<void> =>
  say(link, { _tag: "Refused", code: code.slice(0, 200), message: message.slice(0, 300) })
