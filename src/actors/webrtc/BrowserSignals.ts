/**
 * The signals of a connector's sessions with browsers. The two ends seal them for each other
 * (`SignalSeal`), so that the DTLS fingerprint in a signal belongs to the key that the grant names.
 */
import { Effect } from "effect"
import type { IceServer } from "node-datachannel"
import { createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject } from "node:crypto"
import * as IceSignal from "../../protocol/candidate/IceSignal.ts"
import { toBytes } from "../../protocol/trust/NodeKey.ts"
import * as SignalSeal from "../../protocol/trust/SignalSeal.ts"
import * as Crypto from "../../services/host/Crypto.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"

/** A session whose signals are sealed. */
export interface Signalled {
  readonly parties: SignalSeal.Parties
  readonly session: {
    /** Handles a signal of the browser. `servers` are used by a connection that an offer begins. */
    readonly onSignal: (signal: IceSignal.IceSignal, servers: ReadonlyArray<string | IceServer>) => void
  }
  /** Seal of the signals. `null` until both ends have agreed on a key. */
  seal: SignalSeal.SignalSeal | null
}

/** Options of {@link make}. */
export interface Options {
  /** Signs with the key of this connector. */
  readonly sign: (message: Uint8Array) => Uint8Array
  /** Forwards a sealed message to the browser of a session, through the relay. */
  readonly forward: (session: SessionId, box: Uint8Array) => Effect.Effect<void>
  /** ICE servers for a new connection. */
  readonly servers: Effect.Effect<ReadonlyArray<string | IceServer>>
}

/** Makes the signals of one connector. */
export const make = ({ forward, servers, sign }: Options) => {
  /** Takes the client's key, once in a session, and answers with this node's own. */
  const onHello = Effect.fnUntraced(function*(it: Signalled, { ephemeral, signature }: SignalSeal.Hello) {
    const { parties } = it
    const signed = SignalSeal.signedBytes("client", parties, { client: ephemeral, connector: null })
    if (it.seal !== null || !Crypto.verify(toBytes(parties.clientKey), signed, signature)) return
    const own = generateKeyPairSync("x25519")
    const connectorEphemeral = rawOf(own.publicKey)
    const secret = agree(own.privateKey, ephemeral)
    if (secret === null) return
    const agreed = { ...parties, side: "connector", secret, clientEphemeral: ephemeral, connectorEphemeral } as const
    it.seal = yield* Effect.promise(() => SignalSeal.SignalSeal.make(agreed))
    const both = { client: ephemeral, connector: connectorEphemeral }
    const answer = sign(SignalSeal.signedBytes("connector", parties, both))
    yield* forward(parties.session, SignalSeal.encodeHello({ ephemeral: connectorEphemeral, signature: answer }))
  })

  /** Handles a message of the browser that the relay has forwarded. */
  const onBox = Effect.fnUntraced(function*(it: Signalled, box: Uint8Array) {
    const hello = SignalSeal.decodeHello(box)
    if (hello !== null) return yield* onHello(it, hello)
    const { seal, session } = it
    const plain = seal === null ? null : yield* Effect.promise(() => seal.open(box))
    const signal = plain === null ? null : IceSignal.decode(plain)
    if (signal === null) return yield* Effect.logDebug("a browser's signal was not understood")
    session.onSignal(signal, signal.kind === "offer" ? yield* servers : [])
  })

  /** Seals a signal and sends it. Drops it while the two ends have not agreed on a key. */
  const send = ({ parties, seal }: Signalled, signal: IceSignal.IceSignal): Effect.Effect<void> =>
    seal === null
      ? Effect.void
      : Effect.flatMap(
        Effect.promise(() => seal.seal(IceSignal.encode(signal))),
        (box) => forward(parties.session, box)
      )

  return { onBox, send } as const
}

const rawOf = (key: KeyObject): Uint8Array =>
  new Uint8Array(Buffer.from(key.export({ format: "jwk" }).x ?? "", "base64url"))

/**
 * Agrees on a secret by X25519 (RFC 7748). Returns `null` for a key of small order, which would
 * give no secret.
 */
const agree = (privateKey: KeyObject, raw: Uint8Array): Uint8Array | null => {
  try {
    const jwk = { kty: "OKP", crv: "X25519", x: Buffer.from(raw).toString("base64url") }
    return new Uint8Array(diffieHellman({ privateKey, publicKey: createPublicKey({ key: jwk, format: "jwk" }) }))
  } catch {
    return null
  }
}
