/**
 * The client's side of the handshake over a link, and what both sides need for it. It also runs in
 * browsers, so it must not use Node modules.
 */
import { Either } from "effect"
import { concat } from "../protocol/bytes/Concat.ts"
import { encode as framed, HEAD_BYTES, readU32 } from "../protocol/bytes/LengthPrefix.ts"
import * as LinkHandshake from "../protocol/relay/LinkHandshake.ts"
import { type NodeKey, toBytes } from "../protocol/trust/NodeKey.ts"
import { type Link, LinkEnded } from "./Link.ts"

/** Error when the peer sent something that is not a handshake message. */
export class BrokenHandshake extends Error {
  override readonly name = "BrokenHandshake"
}

/** Error when the server refused the client. `code` and `message` give its reason. */
export class RefusedByServer extends Error {
  override readonly name = "RefusedByServer"
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** A node's identity: its public key, and a signer that holds the private key. */
export interface Identity {
  readonly key: NodeKey
  /** Signs with the node's key. Returns a promise where WebCrypto holds the key. */
  readonly sign: (message: Uint8Array) => Uint8Array | Promise<Uint8Array>
}

/**
 * Runs the handshake and returns the bytes of the Welcome. Rejects with `RefusedByServer`,
 * `BrokenHandshake` or `LinkEnded`.
 */
export const asClient = async (
  link: Link,
  options: {
    readonly purpose: LinkHandshake.Purpose
    readonly identity: Identity
    readonly enrol?: LinkHandshake.Enrol | undefined
    /**
     * Throws unless the relay's own key endorses the certificate, where TLS has not proved the
     * relay.
     */
    readonly checkEndorsed?: ((endorsements: ReadonlyArray<Uint8Array>) => void) | undefined
  }
): Promise<Uint8Array> => {
  const { checkEndorsed, enrol, identity, purpose } = options
  await say(link, { _tag: "Hello", version: LinkHandshake.VERSION, purpose })
  const challenge = await hear(link, LinkHandshake.MAX_SERVER_BYTES, "Challenge")
  checkEndorsed?.(challenge.endorsements)
  const signature = await identity.sign(LinkHandshake.signedBytes(purpose, challenge.nonce, link.serverCertSha256))
  await say(link, { _tag: "Auth", nodeKey: toBytes(identity.key), signature, ...(enrol !== undefined && { enrol }) })
  return (await hear(link, LinkHandshake.MAX_SERVER_BYTES, "Welcome")).body
}

/** Sends one handshake message. */
export const say = (link: Link, message: LinkHandshake.Message): Promise<void> =>
  link.write(framed(LinkHandshake.encode(message)))

type Expected<Tag> = Extract<LinkHandshake.Message, { readonly _tag: Tag }>

/** Receives one handshake message of the expected type. Rejects as `asClient` does. */
export const hear = async <Tag extends LinkHandshake.Message["_tag"]>(
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

/** Reads one message body. Bytes after it are put back on the link. */
const readBody = async (link: Link, maxBytes: number): Promise<Uint8Array> => {
  let held: Uint8Array = new Uint8Array(0)
  for (;;) {
    if (held.length >= HEAD_BYTES) {
      const size = readU32(held)
      if (size > maxBytes) throw new BrokenHandshake(`a message of ${size} bytes; at most ${maxBytes}`)
      if (held.length >= HEAD_BYTES + size) {
        link.unread(held.subarray(HEAD_BYTES + size))
        return held.slice(HEAD_BYTES, HEAD_BYTES + size)
      }
    }
    const bytes = await link.read()
    if (bytes === undefined) throw new LinkEnded((await link.closed).reason)
    held = held.length === 0 ? bytes : concat([held, bytes])
  }
}
