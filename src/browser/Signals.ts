/**
 * The WebRTC signals of one session. They are sealed for the connector, and the relay passes them
 * on.
 */
import * as IceSignal from "../protocol/candidate/IceSignal.ts"
import * as SignalSeal from "../protocol/trust/SignalSeal.ts"
import * as BrowserKey from "./BrowserKey.ts"

const X25519 = "X25519"

/** Options of {@link Signals.begin}. */
export interface Options {
  readonly parties: SignalSeal.Parties
  readonly sign: (message: Uint8Array) => Promise<Uint8Array>
  /**
   * Gives a sealed message to the relay. Called in the order in which the messages must be sent.
   */
  readonly forward: (box: Uint8Array) => void
  readonly onSignal: (signal: IceSignal.IceSignal) => void
}

/** The sealed exchange of one session's signals. */
export class Signals {
  readonly #options: Options
  readonly #own: CryptoKeyPair
  readonly #ephemeral: Uint8Array
  #seal: SignalSeal.SignalSeal | null = null
  #isAgreed: () => void = () => undefined
  /** Resolves when the connector has proved its key, so that signals can be sealed. */
  readonly agreed = new Promise<void>((resolve) => {
    this.#isAgreed = resolve
  })
  /**
   * Tail of the queue of tasks. Tasks run one at a time, so that what is sealed first leaves first.
   */
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(options: Options, own: CryptoKeyPair, ephemeral: Uint8Array) {
    this.#options = options
    this.#own = own
    this.#ephemeral = ephemeral
  }

  /** Makes an ephemeral key and sends it to the connector, signed. */
  static async begin(options: Options): Promise<Signals> {
    const own = await crypto.subtle.generateKey(X25519, false, ["deriveBits"])
    if (!("publicKey" in own)) throw new Error("this browser makes no X25519 keys")
    const ephemeral = new Uint8Array(await crypto.subtle.exportKey("raw", own.publicKey))
    const signed = SignalSeal.signedBytes("client", options.parties, { client: ephemeral, connector: null })
    const signature = await options.sign(signed)
    options.forward(SignalSeal.encodeHello({ ephemeral, signature }))
    return new Signals(options, own, ephemeral)
  }

  /** Seals and sends a signal. Dropped if the connector has not proved its key yet. */
  send(signal: IceSignal.IceSignal): void {
    this.#next(async () => {
      if (this.#seal !== null) this.#options.forward(await this.#seal.seal(IceSignal.encode(signal)))
    })
  }

  /**
   * Handles a sealed message from the relay. A message that the connector did not make is ignored.
   */
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
    // A task fails if the peer's key is invalid. The session is then given up by its timeout.
    this.#turn = this.#turn.then(task).catch(() => undefined)
  }
}
