/** A session's signals, sealed for the connector and passed on by the relay. */
import * as IceSignal from "../protocol/IceSignal.ts"
import * as SignalSeal from "../protocol/SignalSeal.ts"
import * as BrowserKey from "./BrowserKey.ts"

const X25519 = "X25519"

export interface Options {
  readonly parties: SignalSeal.Parties
  readonly sign: (message: Uint8Array) => Promise<Uint8Array>
  /** Hands a box to the relay. In order. */
  readonly forward: (box: Uint8Array) => void
  readonly onSignal: (signal: IceSignal.IceSignal) => void
}

export class Signals {
  readonly #options: Options
  readonly #own: CryptoKeyPair
  readonly #ephemeral: Uint8Array
  #seal: SignalSeal.SignalSeal | null = null
  #isAgreed: () => void = () => undefined
  /** Resolves once the connector has shown its key. */
  readonly agreed = new Promise<void>((resolve) => {
    this.#isAgreed = resolve
  })
  /** Everything goes through here in turn: what is sealed first leaves first. */
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(options: Options, own: CryptoKeyPair, ephemeral: Uint8Array) {
    this.#options = options
    this.#own = own
    this.#ephemeral = ephemeral
  }

  /** Says hello. */
  static async begin(options: Options): Promise<Signals> {
    const own = await crypto.subtle.generateKey(X25519, false, ["deriveBits"])
    if (!("publicKey" in own)) throw new Error("this browser makes no X25519 keys")
    const ephemeral = new Uint8Array(await crypto.subtle.exportKey("raw", own.publicKey))
    const signed = SignalSeal.signedBytes("client", options.parties, { client: ephemeral, connector: null })
    const signature = await options.sign(signed)
    options.forward(SignalSeal.encodeHello({ ephemeral, signature }))
    return new Signals(options, own, ephemeral)
  }

  send(signal: IceSignal.IceSignal): void {
    this.#next(async () => {
      if (this.#seal !== null) this.#options.forward(await this.#seal.seal(IceSignal.encode(signal)))
    })
  }

  /** From the relay. What the connector has not made is passed over. */
  onBox(box: Uint8Array): void {
    this.#next(async () => {
      const hello = SignalSeal.decodeHello(box)
      if (hello !== null) return await this.#onHello(hello)
      const plain = await this.#seal?.open(box)
      const signal = plain === undefined || plain === null ? null : IceSignal.decode(plain)
      if (signal !== null) this.#options.onSignal(signal)
    })
  }

  async #onHello({ ephemeral, signature }: SignalSeal.Hello): Promise<void> {
    if (this.#seal !== null) return
    const { parties } = this.#options
    const signed = SignalSeal.signedBytes("connector", parties, { client: this.#ephemeral, connector: ephemeral })
    if (!await BrowserKey.verify(parties.connectorKey, signed, signature)) return
    const theirs = await crypto.subtle.importKey("raw", new Uint8Array(ephemeral), X25519, false, [])
    const secret = await crypto.subtle.deriveBits({ name: X25519, public: theirs }, this.#own.privateKey, 256)
    this.#seal = await SignalSeal.SignalSeal.make({
      ...parties,
      side: "client",
      secret: new Uint8Array(secret),
      clientEphemeral: this.#ephemeral,
      connectorEphemeral: ephemeral
    })
    this.#isAgreed()
  }

  #next(task: () => Promise<void>): void {
    this.#turn = this.#turn.then(task).catch(() => undefined) // of a key that is none: the session is given up in time
  }
}
