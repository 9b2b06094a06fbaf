/** Both sides of the handshake over a link. What follows it stays on the link, unread. */
import { Either } from "effect"
import { encode as framed, HEAD_BYTES } from "../../protocol/LengthPrefix.ts"
import * as LinkHandshake from "../../protocol/LinkHandshake.ts"
import { fromBytes, type NodeKey, toBytes } from "../../protocol/NodeKey.ts"
import * as Crypto from "../../services/Crypto.ts"
import { type Link, LinkEnded } from "./Link.ts"

/** The peer said something that is no handshake. */
export class BrokenHandshake extends Error {
  override readonly name = "BrokenHandshake"
}

/** The server said no, for a reason that it gave. */
export class RefusedByServer extends Error {
  override readonly name = "RefusedByServer"
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** Who a client says it is; the signature over this link has been checked. */
export interface Claims {
  readonly nodeKey: NodeKey
  readonly purpose: LinkHandshake.Purpose
  readonly enrol?: LinkHandshake.Enrol
  /** Of the certificate that the client saw. */
  readonly certSha256: Uint8Array
}

export interface Identity {
  readonly key: NodeKey
  readonly sign: (message: Uint8Array) => Uint8Array
}

/** Answers with the Welcome's bytes. Throws `RefusedByServer`, `BrokenHandshake` or `LinkEnded`. */
export const asClient = async (
  link: Link,
  options: {
    readonly purpose: LinkHandshake.Purpose
    readonly identity: Identity
    readonly enrol?: LinkHandshake.Enrol | undefined
  }
): Promise<Uint8Array> => {
  const { enrol, identity, purpose } = options
  await say(link, { _tag: "Hello", version: LinkHandshake.VERSION, purpose })
  const challenge = await hear(link, LinkHandshake.MAX_SERVER_BYTES, "Challenge")
  const signature = identity.sign(LinkHandshake.signedBytes(purpose, challenge.nonce, link.serverCertSha256))
  await say(link, { _tag: "Auth", nodeKey: toBytes(identity.key), signature, ...(enrol !== undefined && { enrol }) })
  return (await hear(link, LinkHandshake.MAX_SERVER_BYTES, "Welcome")).body
}

/**
 * Up to the checked signature. The caller then says `welcome` or `refuse`. `certHashes`: of the certificates that a client may
 * have seen, the present and the one before it.
 */
export const asServer = async (
  link: Link,
  options: { readonly purpose: LinkHandshake.Purpose; readonly certHashes: ReadonlyArray<Uint8Array> }
): Promise<Claims> => {
  const { certHashes, purpose } = options
  const hello = await hear(link, LinkHandshake.MAX_CLIENT_BYTES, "Hello")
  if (hello.version !== LinkHandshake.VERSION) {
    throw new RefusedByServer(
      "version",
      `this relay speaks version ${LinkHandshake.VERSION}; run the same version on both sides`
    )
  }
  if (hello.purpose !== purpose) throw new BrokenHandshake(`purpose ${hello.purpose} on the path of ${purpose}`)
  const nonce = Crypto.randomBytes(LinkHandshake.NONCE_BYTES)
  await say(link, { _tag: "Challenge", nonce })
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

export const welcome = (link: Link, body: Uint8Array): Promise<void> => say(link, { _tag: "Welcome", body })

export const refuse = (link: Link, code: string, message: string): Promise<void> =>
  say(link, { _tag: "Refused", code: code.slice(0, 200), message: message.slice(0, 300) })

const say = (link: Link, message: LinkHandshake.Message): Promise<void> =>
  link.write(framed(LinkHandshake.encode(message)))

type Expected<Tag> = Extract<LinkHandshake.Message, { readonly _tag: Tag }>

const hear = async <Tag extends LinkHandshake.Message["_tag"]>(
  link: Link,
  maxBytes: number,
  tag: Tag
): Promise<Expected<Tag>> => {
  const decoded = LinkHandshake.decode(await readBody(link, maxBytes))
  if (Either.isLeft(decoded)) throw new BrokenHandshake(decoded.left.problem)
  const message = decoded.right
  if (message._tag === "Refused") throw new RefusedByServer(message.code, message.message)
  if (message._tag !== tag) throw new BrokenHandshake(`${message._tag} where ${tag} was due`)
  return message as Expected<Tag>
}

/** One body; what comes after it goes back to the link. */
const readBody = async (link: Link, maxBytes: number): Promise<Uint8Array> => {
  let held: Uint8Array = new Uint8Array(0)
  for (;;) {
    if (held.length >= HEAD_BYTES) {
      const size = Buffer.from(held.buffer, held.byteOffset, HEAD_BYTES).readUInt32BE()
      if (size > maxBytes) throw new BrokenHandshake(`a message of ${size} bytes; at most ${maxBytes}`)
      if (held.length >= HEAD_BYTES + size) {
        link.unread(held.subarray(HEAD_BYTES + size))
        return held.slice(HEAD_BYTES, HEAD_BYTES + size)
      }
    }
    const bytes = await link.read()
    if (bytes === undefined) throw new LinkEnded((await link.closed).reason)
    held = held.length === 0 ? bytes : Buffer.concat([held, bytes])
  }
}
