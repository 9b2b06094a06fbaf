/**
 * Seals the signals of a browser and a connector (`IceSignal`), so that the relay that passes them
 * on cannot read or change them. There is no QUIC session to protect them, so the two agree on
 * keys: each sends one ephemeral X25519 key (RFC 7748), signed by its node key, the client first.
 *
 *     hello   1 | ephemeral key 32 | Ed25519 signature 64, of `signedBytes`
 *     sealed  2 | counter u32 | AES-256-GCM of the signal, with the session id as additional data
 *
 * The connector signs both ephemeral keys, so a hello of another time is of no use. The keys are
 * HKDF-SHA256 (RFC 5869) of the agreed secret, salted with everything that was signed, one for each
 * direction. Counters begin at 1 and ascend.
 */
// oxlint-disable no-restricted-globals -- WebCrypto is what browsers and Node have in common
import { concat } from "../bytes/Concat.ts"
import type { NodeKey } from "./NodeKey.ts"

export const EPHEMERAL_BYTES = 32
const SIGNATURE_BYTES = 64
const COUNTER_BYTES = 4
const Type = { hello: 1, sealed: 2 } as const
/** Bytes that sealing adds: type, counter and tag. */
export const SEAL_BYTES = 1 + COUNTER_BYTES + 16

export type Side = "client" | "connector"

/** The session and the two nodes whose signals are sealed. */
export interface Parties {
  /** Session id, as 32 hex characters. */
  readonly session: string
  readonly clientKey: NodeKey
  readonly connectorKey: NodeKey
}

/** First sealed message of each side. */
export interface Hello {
  readonly ephemeral: Uint8Array
  readonly signature: Uint8Array
}

/** Ephemeral X25519 keys of both sides. */
export interface Ephemerals {
  readonly client: Uint8Array
  /** `null` if it is not known yet, as for the client, which signs first. */
  readonly connector: Uint8Array | null
}

const utf8 = new TextEncoder()

/** Returns the bytes that `side` signs with its node key. */
export const signedBytes = (side: Side, parties: Parties, ephemerals: Ephemerals): Uint8Array =>
  concat([
    utf8.encode(`sallyport/signal-seal-${side}/1\0${parties.session}\0${parties.clientKey}\0${parties.connectorKey}\0`),
    ephemerals.client,
    ...(side === "connector" && ephemerals.connector !== null ? [ephemerals.connector] : [])
  ])

/** Encodes a hello. */
export const encodeHello = ({ ephemeral, signature }: Hello): Uint8Array =>
  concat([Uint8Array.of(Type.hello), ephemeral, signature])

/** Decodes a hello. `null` if the bytes are something else. */
export const decodeHello = (box: Uint8Array): Hello | null =>
  box[0] === Type.hello && box.length === 1 + EPHEMERAL_BYTES + SIGNATURE_BYTES
    ? { ephemeral: box.slice(1, 1 + EPHEMERAL_BYTES), signature: box.slice(1 + EPHEMERAL_BYTES) }
    : null

interface Agreed extends Parties {
  readonly side: Side
  /** Shared secret of X25519, 32 bytes. */
  readonly secret: Uint8Array
  readonly clientEphemeral: Uint8Array
  readonly connectorEphemeral: Uint8Array
}

type Key = Awaited<ReturnType<typeof crypto.subtle.deriveKey>>

/**
 * Seals and opens the signals of one session, by WebCrypto. Sealed messages must be opened in the
 * order in which they were sealed.
 */
export class SignalSeal {
  readonly #additionalData: Uint8Array<ArrayBuffer>
  readonly #own: Key
  readonly #peers: Key
  #sent = 0
  #received = 0

  private constructor(session: string, own: Key, peers: Key) {
    this.#additionalData = utf8.encode(session)
    this.#own = own
    this.#peers = peers
  }

  /** Derives the keys from the ephemeral keys of both sides. */
  static async make(agreed: Agreed): Promise<SignalSeal> {
    const { clientEphemeral, connectorEphemeral, secret, session, side } = agreed
    const salt = signedBytes("connector", agreed, { client: clientEphemeral, connector: connectorEphemeral })
    const material = await crypto.subtle.importKey("raw", new Uint8Array(secret), "HKDF", false, ["deriveKey"])
    const keyOf = (from: Side) =>
      crypto.subtle.deriveKey(
        { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(salt), info: utf8.encode(from) },
        material,
        { name: "AES-GCM", length: 256 },
        false,
        [from === side ? "encrypt" : "decrypt"]
      )
    const [own, peers] = await Promise.all([keyOf(side), keyOf(side === "client" ? "connector" : "client")])
    return new SignalSeal(session, own, peers)
  }

  /** Seals a signal and returns the sealed message. */
  async seal(plain: Uint8Array): Promise<Uint8Array> {
    const counter = ++this.#sent
    const box = await crypto.subtle.encrypt(this.#with(counter), this.#own, new Uint8Array(plain))
    const head = new Uint8Array(1 + COUNTER_BYTES)
    head[0] = Type.sealed
    new DataView(head.buffer).setUint32(1, counter)
    return concat([head, new Uint8Array(box)])
  }

  /**
   * Opens a sealed message. `null` if the peer did not seal it, or if it is not newer than the last
   * one.
   */
  async open(box: Uint8Array): Promise<Uint8Array | null> {
    if (box[0] !== Type.sealed || box.length < SEAL_BYTES) return null
    const counter = new DataView(box.buffer, box.byteOffset, box.byteLength).getUint32(1)
    if (counter <= this.#received) return null
    try {
      const plain = await crypto.subtle.decrypt(this.#with(counter), this.#peers, box.slice(1 + COUNTER_BYTES))
      if (counter <= this.#received) return null
      this.#received = counter
      return new Uint8Array(plain)
    } catch {
      return null
    }
  }

  #with(counter: number) {
    const iv = new Uint8Array(12)
    new DataView(iv.buffer).setUint32(8, counter)
    return { name: "AES-GCM", iv, additionalData: this.#additionalData }
  }
}
