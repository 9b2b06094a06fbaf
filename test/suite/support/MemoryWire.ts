/** Two sessions in one process, joined by a wire in memory that can lose, delay and reorder packets, slot by slot. */
import { Effect } from "effect"
import { Buffer } from "node:buffer"
import { generateKeyPairSync } from "node:crypto"
import { selfSigned } from "../../../src/services/identity/Pki.ts"
import { engine } from "../../../src/transport/quic/engine/QuicheEngine.ts"
import {
  type CloseReason,
  QuicSession,
  type SessionOptions,
  type SlotPath
} from "../../../src/transport/quic/QuicSession.ts"
import { type QuicStream } from "../../../src/transport/quic/QuicStream.ts"
import { HANG_MS } from "../../support/Hang.ts"

export interface WireOptions {
  /** Share of packets lost, 0 to 1. */
  readonly loss?: number
  /** One way, milliseconds. */
  readonly delayMs?: number
  /** Share of packets that come a little later than their successors. */
  readonly reorder?: number
  readonly seed?: number
  readonly path?: SlotPath
  readonly onStream?: (stream: QuicStream) => void
  readonly client?: Partial<SessionOptions>
  readonly connector?: Partial<SessionOptions>
}

export interface Wire {
  readonly client: QuicSession
  readonly connector: QuicSession
  readonly identities: { readonly client: Identity; readonly connector: Identity }
  /** Resolves when both sides are established. */
  readonly established: Promise<void>
  readonly log: {
    readonly validated: { client: Array<number>; connector: Array<number> }
    readonly migrated: Array<number>
    readonly closed: { client: CloseReason | null; connector: CloseReason | null }
    readonly certificates: { client: Uint8Array | null; connector: Uint8Array | null }
    /** By slot: packets put on the wire, either way. */
    readonly packets: Array<number>
    /** Largest packet of each slot, either way, bytes without the head. */
    readonly largest: Array<number>
    /** Longest time that a packet was on the wire, in ms. A busy machine delivers late. */
    slowestMs: number
  }
  /** Slots whose packets are lost from now on. */
  readonly dead: Set<number>
  readonly impair: (impairment: { loss?: number; delayMs?: number; reorder?: number }) => void
  readonly close: () => void
}

export interface Identity {
  readonly certificate: string
  readonly privateKey: string
}

export const makeIdentity = async (): Promise<Identity> => {
  const { privateKey } = generateKeyPairSync("ed25519")
  return {
    certificate: await Effect.runPromise(selfSigned(privateKey)),
    privateKey: privateKey.export({ type: "pkcs8", format: "pem" }).toString()
  }
}

/** xorshift32: the same losses for the same seed. */
const chance = (seed: number) => {
  let state = Math.imul(seed, 0x9e3779b1) | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

const HEAD_BYTES = 2

/** Of every wire. */
const IDENTITIES = { client: await makeIdentity(), connector: await makeIdentity() }

export const join = (options: WireOptions = {}): Wire => {
  const { client: clientId, connector: connectorId } = IDENTITIES
  const path = options.path ?? { headBytes: HEAD_BYTES, maxPacket: 1440 }
  const roll = chance(options.seed ?? 1)
  const state = { loss: options.loss ?? 0, delayMs: options.delayMs ?? 0, reorder: options.reorder ?? 0 }
  const dead = new Set<number>()
  const log: Wire["log"] = {
    validated: { client: [], connector: [] },
    migrated: [],
    closed: { client: null, connector: null },
    certificates: { client: null, connector: null },
    packets: Array.from({ length: 8 }, () => 0),
    largest: Array.from({ length: 8 }, () => 0),
    slowestMs: 0
  }
  let ready = 0
  let established: () => void = () => {}
  const both = new Promise<void>((resolve) => {
    established = resolve
  })

  const carry = (to: () => QuicSession) => (slot: number, buffer: Buffer, length: number, segment: number) => {
    for (let at = 0; at < length; at += segment) {
      const end = Math.min(at + segment, length)
      log.packets[slot] = (log.packets[slot] ?? 0) + 1
      log.largest[slot] = Math.max(log.largest[slot] ?? 0, end - at - path.headBytes)
      if (dead.has(slot) || roll() < state.loss) continue
      const packet = Buffer.from(buffer.subarray(at + path.headBytes, end))
      const sentAt = performance.now()
      const deliver = () => {
        log.slowestMs = Math.max(log.slowestMs, performance.now() - sentAt)
        to().receive(slot, packet, 0, packet.length)
        to().schedule()
      }
      const delay = state.delayMs + (roll() < state.reorder ? 2 + state.delayMs / 2 : 0)
      if (delay > 0) setTimeout(deliver, delay)
      else setImmediate(deliver)
    }
  }
  const common = { engine, slot: 0, path, now: () => performance.now() }
  const client: QuicSession = new QuicSession({
    ...common,
    ...clientId,
    role: "client",
    transmit: carry(() => connector),
    onEstablished: (certificate) => {
      log.certificates.client = certificate
      if (++ready === 2) established()
    },
    onStream: () => {},
    onClosed: (reason) => {
      log.closed.client = reason
    },
    onPathValidated: (slot) => {
      log.validated.client.push(slot)
    },
    ...options.client
  })
  const connector: QuicSession = new QuicSession({
    ...common,
    ...connectorId,
    role: "connector",
    transmit: carry(() => client),
    onEstablished: (certificate) => {
      log.certificates.connector = certificate
      if (++ready === 2) established()
    },
    onStream: (stream) => options.onStream?.(stream),
    onClosed: (reason) => {
      log.closed.connector = reason
    },
    onPathValidated: (slot) => {
      log.validated.connector.push(slot)
    },
    onPeerMigrated: (slot) => {
      log.migrated.push(slot)
    },
    ...options.connector
  })
  return {
    client,
    connector,
    identities: IDENTITIES,
    established: both,
    log,
    dead,
    impair: (impairment) => Object.assign(state, impairment),
    close: () => {
      client.close(0, "test over")
      connector.close(0, "test over")
    }
  }
}

/** Polls, since sessions tell only some things; fails after `ms`. */
export const until = async (what: string, test: () => boolean): Promise<void> => {
  const deadline = performance.now() + HANG_MS
  while (!test()) {
    if (performance.now() > deadline) throw new Error(`not within ${HANG_MS} ms: ${what}`)
    await new Promise((resolve) => {
      setImmediate(resolve)
    })
  }
}
