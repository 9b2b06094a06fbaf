/** The server's side of SOCKS5 (RFC 1928), without authentication: a machine that is fed bytes and says what to write. */
import { type VerdictCode } from "./FlowWire.ts"

/** Where the application wants to go; a name is kept as it came. */
export interface Target {
  readonly host: string
  readonly port: number
}

/** Reply field, RFC 1928, section 6. */
export const Reply = {
  succeeded: 0,
  general: 1,
  notAllowed: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  refused: 5,
  commandNotSupported: 7,
  addressTypeNotSupported: 8
} as const

export type Step =
  /** Feed more. `write` may be empty. */
  | { readonly _tag: "More"; readonly write: Uint8Array }
  /** A CONNECT; `early` came behind it and belongs to the flow. Answer with `reply`. */
  | { readonly _tag: "Connect"; readonly write: Uint8Array; readonly target: Target; readonly early: Uint8Array }
  /** Write, then close. */
  | { readonly _tag: "Fail"; readonly write: Uint8Array; readonly reason: FailReason }
export type FailReason = "version" | "method" | "command" | "address" | "too_long"

const SOCKS = 5
const NO_AUTH = 0
const NO_METHOD = 255
const CONNECT = 1
const ADDRESS = { v4: 1, name: 3, v6: 4 } as const
/** Greeting 2 + 255, request 4 + 1 + 255 + 2; whatever is longer before a CONNECT is complete is no SOCKS. */
export const MAX_HANDSHAKE_BYTES = 1024
const NOTHING = new Uint8Array(0)

/** Bound address 0.0.0.0:0: the far end's is of no use to the application. */
export const reply = (code: number): Uint8Array => Uint8Array.of(SOCKS, code, 0, ADDRESS.v4, 0, 0, 0, 0, 0, 0)

/** The same class of error as the application would have met itself. */
export const replyOf = (verdict: VerdictCode): number => {
  switch (verdict) {
    case "accepted":
      return Reply.succeeded
    case "denied":
    case "port_not_listed":
    case "grant_expired":
      return Reply.notAllowed
    case "name_not_found":
    case "unreachable":
    case "timed_out":
      return Reply.hostUnreachable
    case "refused":
      return Reply.refused
    case "too_many_flows":
    case "internal":
      return Reply.general
  }
}

const fail = (reason: FailReason, write: Uint8Array): Step => ({ _tag: "Fail", reason, write })

export class Handshake {
  #kept: Uint8Array = NOTHING
  #greeted = false

  /** Not to be called again after `Connect` or `Fail`. */
  push(bytes: Uint8Array): Step {
    this.#kept = join(this.#kept, bytes)
    let written: Uint8Array = NOTHING
    if (!this.#greeted) {
      const greeting = this.#greet()
      if (greeting === null) return this.#more(NOTHING)
      if (greeting._tag === "Fail") return greeting
      written = greeting.write
    }
    return this.#request(written)
  }

  #more(write: Uint8Array): Step {
    return this.#kept.length > MAX_HANDSHAKE_BYTES ? fail("too_long", NOTHING) : { _tag: "More", write }
  }

  #greet(): { readonly _tag: "Ok"; readonly write: Uint8Array } | (Step & { readonly _tag: "Fail" }) | null {
    const [version, count] = this.#kept
    if (version !== undefined && version !== SOCKS) return { _tag: "Fail", reason: "version", write: NOTHING }
    if (count === undefined || this.#kept.length < 2 + count) return null
    if (!this.#kept.subarray(2, 2 + count).includes(NO_AUTH)) {
      return { _tag: "Fail", reason: "method", write: Uint8Array.of(SOCKS, NO_METHOD) }
    }
    this.#greeted = true
    this.#kept = this.#kept.slice(2 + count)
    return { _tag: "Ok", write: Uint8Array.of(SOCKS, NO_AUTH) }
  }

  #request(written: Uint8Array): Step {
    const [version, command, , kind, nameLength] = this.#kept
    if (version !== undefined && version !== SOCKS) return fail("version", written)
    if (kind === undefined) return this.#more(written)
    if (command !== CONNECT) return fail("command", join(written, reply(Reply.commandNotSupported)))
    if (kind !== ADDRESS.v4 && kind !== ADDRESS.v6 && kind !== ADDRESS.name) {
      return fail("address", join(written, reply(Reply.addressTypeNotSupported)))
    }
    if (nameLength === undefined) return this.#more(written)
    const from = kind === ADDRESS.name ? 5 : 4
    const to = from + (kind === ADDRESS.v4 ? 4 : kind === ADDRESS.v6 ? 16 : nameLength)
    if (this.#kept.length < to + 2) return this.#more(written)
    const host = hostOf(kind, this.#kept.subarray(from, to))
    const port = (this.#kept[to] ?? 0) << 8 | (this.#kept[to + 1] ?? 0)
    if (host === null || port === 0) return fail("address", join(written, reply(Reply.general)))
    return { _tag: "Connect", write: written, target: { host, port }, early: this.#kept.slice(to + 2) }
  }
}

const join = (first: Uint8Array, second: Uint8Array): Uint8Array => {
  const all = new Uint8Array(first.length + second.length)
  all.set(first)
  all.set(second, first.length)
  return all
}

/** Null: a name with characters that no name or address has. */
const hostOf = (kind: number, bytes: Uint8Array): string | null => {
  if (kind === ADDRESS.v4) return bytes.join(".")
  if (kind === ADDRESS.v6) {
    return Array.from({ length: 8 }, (_, at) => ((bytes[at * 2] ?? 0) << 8 | (bytes[at * 2 + 1] ?? 0)).toString(16))
      .join(":")
  }
  const name = String.fromCharCode(...bytes)
  return /^[\x21-\x7e]{1,253}$/.test(name) ? name : null
}
