/** A relay on a loopback socket, and nodes that bind at it as real ones do. */
import { Either } from "effect"
import { generateKeyPairSync, type KeyObject } from "node:crypto"
import * as Frame from "../../../src/protocol/bytes/Frame.ts"
import * as RelayBinding from "../../../src/protocol/relay/RelayBinding.ts"
import * as RelayWire from "../../../src/protocol/relay/RelayWire.ts"
import * as Documents from "../../../src/protocol/trust/Documents.ts"
import * as NodeKey from "../../../src/protocol/trust/NodeKey.ts"
import { type Signed, signedBytes } from "../../../src/protocol/trust/Signed.ts"
import * as Crypto from "../../../src/services/host/Crypto.ts"
import { type Options, RelayServer } from "../../../src/transport/relay/RelayServer.ts"
import * as UdpPort from "../../../src/transport/udp/UdpPort.ts"
import { HANG_MS } from "../../support/Hang.ts"

const HOST = "127.0.0.1"
const SEGMENT = 1448
export const epochSeconds = (): number => Math.floor(Date.now() / 1000)

export interface Identity {
  readonly key: NodeKey.NodeKey
  readonly privateKey: KeyObject
}
export const newIdentity = (): Identity => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  return { privateKey, key: NodeKey.fromBytes(Crypto.rawPublicKey(publicKey)!) }
}

export const authority = newIdentity()
const signedBy = (who: Identity, kind: "credential" | "ticket", payload: Uint8Array): Signed => ({
  payload,
  signature: Crypto.sign(who.privateKey, signedBytes(kind, payload))
})
export const credential = (key: NodeKey.NodeKey, seconds = 300, by = authority): Signed =>
  signedBy(by, "credential", Documents.encode("credential", { nodeKey: key, expiresAt: epochSeconds() + seconds }))

export interface Pair {
  readonly session: string
  readonly clientTag: number
  readonly connectorTag: number
  readonly ticket: Signed
}
/** `at`: when it is issued, in epoch seconds; now by default. */
export const ticket = (
  client: Identity,
  connector: Identity,
  options: { at?: number; seconds?: number; by?: Identity; session?: string; clientTag?: string } = {}
): Pair => {
  const fields = {
    session: options.session ?? Crypto.randomHex(16),
    clientKey: client.key,
    connectorKey: connector.key,
    clientTag: options.clientTag ?? Crypto.randomHex(6),
    connectorTag: Crypto.randomHex(6),
    expiresAt: (options.at ?? epochSeconds()) + (options.seconds ?? 600)
  }
  return {
    session: fields.session,
    clientTag: Frame.tagFromHex(fields.clientTag),
    connectorTag: Frame.tagFromHex(fields.connectorTag),
    ticket: signedBy(options.by ?? authority, "ticket", Documents.encode("ticket", fields))
  }
}

export const verify: Options["verify"] = {
  authority: (message, signature) => Crypto.verify(NodeKey.toBytes(authority.key), message, signature),
  node: (key, message, signature) => Crypto.verify(NodeKey.toBytes(key), message, signature)
}

export interface Clock {
  /** Added to the real times, milliseconds. */
  skewMs: number
  /** Added to the directory's time alone, milliseconds, as where the directory was set. */
  jumpMs: number
}

export class Relay {
  readonly server: RelayServer
  readonly clock: Clock
  readonly udp: UdpPort.UdpPort

  constructor(server: RelayServer, udp: UdpPort.UdpPort, clock: Clock) {
    this.server = server
    this.udp = udp
    this.clock = clock
  }

  static async start(options: Partial<Options> = {}, offload = true): Promise<Relay> {
    const clock: Clock = { skewMs: 0, jumpMs: 0 }
    const server = new RelayServer({
      verify,
      now: () => performance.now() + clock.skewMs,
      epochSeconds: () => epochSeconds() + Math.floor((clock.skewMs + clock.jumpMs) / 1000),
      ...options
    })
    const udp = await UdpPort.open({
      host: HOST,
      port: 0,
      family: 4,
      segment: SEGMENT,
      offload,
      onMessage: (bytes, from) => server.onUdp(bytes, from, 0),
      onError: (cause) => {
        throw cause
      }
    })
    server.setPort(0, udp)
    return new Relay(server, udp, clock)
  }

  get port(): number {
    return this.udp.address().port
  }
}

/** One bound node: sockets, binding, and what it received. */
export class Peer {
  readonly identity: Identity
  relayPort: number
  readonly outputs: Array<RelayBinding.Output> = []
  readonly received: Array<Buffer> = []
  onData: ((bytes: Buffer) => void) | null = null
  /** Called for each message of the relay. */
  onControl: (message: RelayWire.Message) => void = () => {}
  credential: Signed
  /** Which relay it means to bind at. */
  relayName = ""
  binding: RelayBinding.RelayBinding
  udp!: UdpPort.UdpPort
  #timer: NodeJS.Timeout | undefined

  constructor(relayPort: number, identity = newIdentity()) {
    this.relayPort = relayPort
    this.identity = identity
    this.credential = credential(identity.key)
    this.binding = new RelayBinding.RelayBinding({ carrier: "udp", newNonce: () => Crypto.randomBytes(8) })
  }

  async open(offload = true): Promise<this> {
    const before = this.udp as UdpPort.UdpPort | undefined
    this.udp = await UdpPort.open({
      host: HOST,
      port: 0,
      family: 4,
      segment: SEGMENT,
      offload,
      onMessage: (bytes) => this.#onMessage(bytes),
      onError: (cause) => {
        throw cause
      }
    })
    before?.close()
    return this
  }

  async bind(): Promise<this> {
    this.apply(this.binding.onCredential(true, performance.now()))
    await this.until(() => this.binding.phase === "bound")
    return this
  }

  async openSession(pair: Pair, tag: number): Promise<void> {
    this.apply(this.binding.onTicket(pair.session, tag, pair.ticket, performance.now()))
    await this.until(() => this.outputs.some((one) => one._tag === "Opened" && one.session === pair.session))
  }

  /** Frames of `length` bytes in all, `count` of them as one train. */
  sendData(tag: number, length: number, count = 1, fill = 0x40): void {
    const bytes = Buffer.alloc(length * count, fill)
    for (let at = 0; at < bytes.length; at += length) Frame.writeRelayedHead(bytes, at, length, tag)
    this.udp.sendTrain(bytes, bytes.length, length, this.relayPort, HOST)
  }

  sendRaw(bytes: Uint8Array): void {
    this.udp.send(bytes, 0, bytes.length, this.relayPort, HOST)
  }

  apply(outputs: ReadonlyArray<RelayBinding.Output>): void {
    for (const output of outputs) {
      this.outputs.push(output)
      if (output._tag === "Send") this.sendRaw(RelayWire.encode(output.message, output.padTo))
      if (output._tag === "SendBind") {
        const signature = Crypto.sign(this.identity.privateKey, RelayWire.bindText(output.cookie, this.relayName))
        const { cookie, nonce } = output
        this.sendRaw(RelayWire.encode({ _tag: "Bind", nonce, cookie, signature, credential: this.credential }))
      }
    }
    clearTimeout(this.#timer)
    const wait = this.binding.wakeAt - performance.now()
    if (wait < 60_000) {
      this.#timer = setTimeout(() => this.apply(this.binding.onTick(performance.now())), Math.max(1, wait))
    }
  }

  seen(tag: RelayBinding.Output["_tag"]): Array<RelayBinding.Output> {
    return this.outputs.filter((one) => one._tag === tag)
  }

  until(done: () => boolean): Promise<void> {
    return until(done)
  }

  close(): void {
    clearTimeout(this.#timer)
    this.udp.close()
  }

  #onMessage(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const length = Frame.lengthAt(bytes, at)
      if (length === 0) return void this.received.push(bytes.subarray(at))
      const frame = bytes.subarray(at, at + length)
      at += length
      if (Frame.tagAt(frame, 0) !== Frame.CONTROL_TAG) {
        if (this.onData === null) this.received.push(frame)
        else this.onData(frame)
        continue
      }
      const message = RelayWire.decode(frame)
      if (Either.isLeft(message)) continue
      this.onControl(message.right)
      this.apply(this.binding.onMessage(message.right, performance.now()))
    }
  }
}

export const until = async (done: () => boolean): Promise<void> => {
  const end = performance.now() + HANG_MS
  while (!done()) {
    if (performance.now() > end) throw new Error(`waited ${HANG_MS} ms in vain for ${done.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 4))
  }
}

/** Two bound nodes with an open session. */
export const connect = async (relay: Relay, offload = true) => {
  const client = await (await new Peer(relay.port).open(offload)).bind()
  const connector = await (await new Peer(relay.port).open(offload)).bind()
  const pair = ticket(client.identity, connector.identity)
  await client.openSession(pair, pair.clientTag)
  await connector.openSession(pair, pair.connectorTag)
  await until(() => client.seen("PeerLeg").length > 0)
  return { client, connector, pair }
}
