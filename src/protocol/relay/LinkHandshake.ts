/**
 * First messages between the two ends of a relay link, each inside a length prefix
 * (`LengthPrefix`):
 *
 *     client                                   server     Hello{version, purpose}            ->
 * <-    Challenge{nonce, endorsements}     Auth{nodeKey, signature, enrol?}   ->
 * <-    Welcome{bytes of the server's choice}                                              or
 * Refused{code, message}
 *
 * The signature covers the purpose, the nonce and the certificate that the client saw. It is
 * therefore worth nothing on another link, for another purpose, or to someone between the two who
 * has a certificate of their own. If the token says that a reverse proxy ends TLS, the relay does
 * not know that certificate. The client then checks the certificate as a browser would, and signs
 * the name for which it checked it (`proxiedName`).
 *
 * A client that pins the relay's own key may meet a certificate that this key did not issue,
 * because the operator has configured another one since. The relay then endorses that certificate:
 * its own key signs the certificate's hash (`endorsedBytes`). The client checks this before it says
 * anything about itself.
 */
import { Either } from "effect"
import { concat } from "../bytes/Concat.ts"

export const VERSION = 1
/**
 * Largest message from a client, in bytes. The server stores no more than this for a client that is
 * not authenticated.
 */
export const MAX_CLIENT_BYTES = 4096
/**
 * Largest message from the server, in bytes. A Welcome holds signed documents, and by then the
 * client has checked the server's certificate.
 */
export const MAX_SERVER_BYTES = 64 * 1024
/** Length of the challenge's nonce, in bytes. */
export const NONCE_BYTES = 32
/** Length of a raw Ed25519 public key, in bytes. */
export const KEY_BYTES = 32
/** Length of an Ed25519 signature, in bytes. */
export const SIGNATURE_BYTES = 64
/** Longest text in a message of the handshake, in bytes. */
const MAX_TEXT_BYTES = 1024

/**
 * Purpose of a link. `signal`: calls. `relay`: relayed frames. `browser`: calls by a page, which
 * signs {@link UNSEEN_CERT}, because a browser does not show it the certificate.
 */
export type Purpose = "signal" | "relay" | "browser"
/**
 * Stands for the certificate's hash on links of purpose `browser`. It is not accepted for another
 * purpose, and nothing else is accepted for this one.
 */
export const UNSEEN_CERT = new Uint8Array(32)

/** Enrolment of a node that is not registered yet. Sent once. */
export interface Enrol {
  readonly tokenId: string
  readonly secret: string
  /**
   * Name that the node's configuration gives it. The relay refuses a token that is for another
   * name.
   */
  readonly name?: string
  /** Role of the node. The relay refuses a token that is for another role. */
  readonly role?: string
}

/** First message of the client: the protocol's version and the purpose of the link. */
export interface Hello {
  readonly _tag: "Hello"
  readonly version: number
  readonly purpose: Purpose
}
/** The server's answer to Hello: a nonce for the client to sign. */
export interface Challenge {
  readonly _tag: "Challenge"
  readonly nonce: Uint8Array
  /** Signatures over `endorsedBytes` of the certificates that the client may have seen. */
  readonly endorsements: ReadonlyArray<Uint8Array>
}
/** The client's proof that it holds its node key. */
export interface Auth {
  readonly _tag: "Auth"
  readonly nodeKey: Uint8Array
  readonly signature: Uint8Array
  readonly enrol?: Enrol
}
/** The server accepts the client. `body` is the server's own: signed documents of the node. */
export interface Welcome {
  readonly _tag: "Welcome"
  readonly body: Uint8Array
}
/** The server refuses the client. */
export interface Refused {
  readonly _tag: "Refused"
  /** One word for programs. */
  readonly code: string
  /** Text for people that says what to do next. */
  readonly message: string
}
/** A message of the handshake. */
export type Message = Hello | Challenge | Auth | Welcome | Refused

/** Bytes that are not a handshake message. `problem` says why in a few words. */
export interface BadMessage {
  readonly _tag: "BadMessage"
  readonly problem: string
}

/**
 * Returns the text that is hashed (SHA-256) and signed instead of the certificate if a reverse
 * proxy ends TLS: the name for which the client checked the public certificate. A server without a
 * certificate for that name cannot obtain this signature, and no other relay accepts it.
 */
export const proxiedName = (host: string): Uint8Array =>
  utf8.encode(`sallyport/link/proxied/1\0${host.toLowerCase().replace(/\.$/, "")}`)

const TYPES = { Hello: 1, Challenge: 2, Auth: 3, Welcome: 4, Refused: 5 } as const
// On the wire they are 1, 2 and 3.
const PURPOSES: ReadonlyArray<Purpose> = ["signal", "relay", "browser"]
const HAS_ENROL = 1
const HAS_NAME = 2
const HAS_ROLE = 4
const ENROL_FLAGS = HAS_ENROL | HAS_NAME | HAS_ROLE

const utf8 = new TextEncoder()

/** The relay's certificate and the one before it. */
const MAX_ENDORSEMENTS = 2

/** Returns the bytes that the relay's own key signs for a certificate that it did not issue. */
export const endorsedBytes = (certSha256: Uint8Array): Uint8Array =>
  concat([utf8.encode("sallyport/link/certificate/1\0"), certSha256])

/**
 * Returns the bytes that the node key signs. Nonce and hash have fixed lengths, so no two inputs
 * give the same bytes.
 */
export const signedBytes = (purpose: Purpose, nonce: Uint8Array, certSha256: Uint8Array): Uint8Array =>
  concat([utf8.encode(`sallyport/link/1\0${purpose}`), nonce, certSha256])

/**
 * Encodes a message. Throws a `RangeError` for text of more than 1024 bytes or parts of the wrong
 * length. That is the caller's mistake, never the peer's.
 */
export const encode = (message: Message): Uint8Array => {
  const type = Uint8Array.of(TYPES[message._tag])
  switch (message._tag) {
    case "Hello":
      return concat([type, Uint8Array.of(message.version, PURPOSES.indexOf(message.purpose) + 1)])
    case "Challenge":
      return concat([
        type,
        exactly(message.nonce, NONCE_BYTES),
        ...message.endorsements.map((signature) => exactly(signature, SIGNATURE_BYTES))
      ])
    case "Auth":
      return concat([
        type,
        exactly(message.nodeKey, KEY_BYTES),
        exactly(message.signature, SIGNATURE_BYTES),
        ...enrolParts(message.enrol)
      ])
    case "Welcome":
      return concat([type, message.body])
    case "Refused":
      return concat([type, ...textParts(message.code), ...textParts(message.message)])
  }
}

/** Decodes one whole message. Never throws, whatever the bytes. */
export const decode = (bytes: Uint8Array): Either.Either<Message, BadMessage> => {
  const reader = new Reader(bytes)
  const message = read(reader)
  if (reader.problem !== "") return bad(reader.problem)
  return reader.left === 0 ? Either.right(message) : bad(`${reader.left} bytes after the end of ${message._tag}`)
}

const read = (reader: Reader): Message => {
  const type = reader.byte()
  switch (type) {
    case TYPES.Hello:
      return readHello(reader)
    case TYPES.Challenge:
      return readChallenge(reader)
    case TYPES.Auth:
      return readAuth(reader)
    case TYPES.Welcome:
      return { _tag: "Welcome", body: reader.bytes(reader.left) }
    case TYPES.Refused:
      return { _tag: "Refused", code: reader.text(), message: reader.text() }
    default:
      reader.fail(`unknown message type ${type}`)
      return { _tag: "Refused", code: "", message: "" }
  }
}

const readHello = (reader: Reader): Hello => {
  const version = reader.byte()
  const number = reader.byte()
  const purpose = PURPOSES[number - 1]
  if (purpose === undefined) reader.fail(`unknown purpose ${number}`)
  return { _tag: "Hello", version, purpose: purpose ?? "signal" }
}

const readChallenge = (reader: Reader): Challenge => {
  const nonce = reader.bytes(NONCE_BYTES)
  const endorsements: Array<Uint8Array> = []
  while (reader.left > 0 && reader.problem === "" && endorsements.length < MAX_ENDORSEMENTS) {
    endorsements.push(reader.bytes(SIGNATURE_BYTES))
  }
  return { _tag: "Challenge", nonce, endorsements }
}

const readAuth = (reader: Reader): Auth => {
  const auth = { _tag: "Auth" as const, nodeKey: reader.bytes(KEY_BYTES), signature: reader.bytes(SIGNATURE_BYTES) }
  const flags = reader.byte()
  if (flags === 0) return auth
  if ((flags & HAS_ENROL) === 0 || (flags & ~ENROL_FLAGS) !== 0) reader.fail(`unknown flags ${flags}`)
  const enrol = {
    tokenId: reader.text(),
    secret: reader.text(),
    ...((flags & HAS_NAME) !== 0 && { name: reader.text() }),
    ...((flags & HAS_ROLE) !== 0 && { role: reader.text() })
  }
  return { ...auth, enrol }
}

const enrolParts = (enrol: Enrol | undefined): Array<Uint8Array> => {
  if (enrol === undefined) return [Uint8Array.of(0)]
  const { name, role, secret, tokenId } = enrol
  const flags = HAS_ENROL | (name === undefined ? 0 : HAS_NAME) | (role === undefined ? 0 : HAS_ROLE)
  return [
    Uint8Array.of(flags),
    ...textParts(tokenId),
    ...textParts(secret),
    ...(name === undefined ? [] : textParts(name)),
    ...(role === undefined ? [] : textParts(role))
  ]
}

/** Encodes text as u16 length and UTF-8. */
const textParts = (text: string): Array<Uint8Array> => {
  const bytes = utf8.encode(text)
  if (bytes.length > MAX_TEXT_BYTES) throw new RangeError(`text of ${bytes.length} bytes; at most ${MAX_TEXT_BYTES}`)
  return [Uint8Array.of(bytes.length >> 8, bytes.length & 255), bytes]
}

const exactly = (bytes: Uint8Array, length: number): Uint8Array => {
  if (bytes.length !== length) throw new RangeError(`${bytes.length} bytes where ${length} are needed`)
  return bytes
}

const bad = (problem: string) => Either.left({ _tag: "BadMessage", problem } as const)

/**
 * Reads a message's fields. After the first problem it reads zeros, so that callers check `problem`
 * only once, at the end.
 */
class Reader {
  problem = ""
  private readonly from: Uint8Array
  private at = 0

  constructor(from: Uint8Array) {
    this.from = from
  }

  get left(): number {
    return this.from.length - this.at
  }

  fail(problem: string): void {
    if (this.problem === "") this.problem = problem
  }

  byte(): number {
    return this.bytes(1)[0]!
  }

  bytes(length: number): Uint8Array {
    if (this.left < length) {
      this.fail("the message ends early")
      return new Uint8Array(length)
    }
    this.at += length
    return this.from.slice(this.at - length, this.at)
  }

  text(): string {
    const length = (this.byte() << 8) | this.byte()
    if (length > MAX_TEXT_BYTES) {
      this.fail(`text of ${length} bytes`)
      return ""
    }
    const bytes = this.bytes(length)
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
    } catch {
      this.fail("text that is not UTF-8")
      return ""
    }
  }
}
