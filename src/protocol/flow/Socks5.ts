/**
 * The server's side of SOCKS5 (RFC 1928), without authentication, and of SOCKS4 and 4a. It is a
 * state machine that is fed bytes and returns what to write. A program that speaks another protocol
 * by mistake gets an answer in that protocol, if it allows one.
 */
import { concat } from "../bytes/Concat.ts"
import * as HostName from "../bytes/HostName.ts"
import { type VerdictCode } from "./FlowWire.ts"

/** Target of a flow, as the application names it. A name that is not ASCII is given as A-labels. */
export interface Target {
  readonly host: string
  readonly port: number
}

/** Values of the reply field (RFC 1928, section 6). */
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
  /** More bytes are needed. `write` may be empty. */
  | { readonly _tag: "More"; readonly write: Uint8Array }
  /** A CONNECT request. `early` came behind it and belongs to the flow. Answer with `answer`. */
  | {
    readonly _tag: "Connect"
    readonly write: Uint8Array
    readonly target: Target
    readonly early: Uint8Array
    /** Returns what to write for a verdict, in the dialect that the program speaks. */
    readonly answer: (verdict: VerdictCode) => Uint8Array
  }
  /** Write these bytes, then close the connection. */
  | { readonly _tag: "Fail"; readonly write: Uint8Array; readonly reason: FailReason }
/**
 * Reason why a handshake failed. `version`: the program speaks none of the known dialects.
 * `method`: it insists on a user name and password.
 */
export type FailReason = "http" | "tls" | "version" | "method" | "command" | "address" | "too_long"

const SOCKS = 5
const SOCKS4 = 4
/** Reply of SOCKS4: granted. */
const GRANTED4 = 90
/** Reply of SOCKS4: rejected or failed. */
const REJECTED4 = 91
const TLS_HANDSHAKE = 0x16
/**
 * Most bytes of an HTTP request's head that are read before the answer, which waits for the head's
 * empty line. An earlier answer would be lost in the reset that unread bytes cause.
 */
const MAX_HTTP_BYTES = 8 * 1024
const NO_AUTH = 0
const NO_METHOD = 255
const CONNECT = 1
const ADDRESS = { v4: 1, name: 3, v6: 4 } as const
/**
 * Most bytes before a CONNECT is complete. A greeting has up to 2 + 255 bytes and a request up to 4
 * + 1 + 255 + 2, so anything longer is not SOCKS.
 */
export const MAX_HANDSHAKE_BYTES = 1024
const NOTHING = new Uint8Array(0)

/**
 * Encodes a reply of SOCKS5. The bound address is 0.0.0.0:0, because the real one is of no use to
 * the application.
 */
export const reply = (code: number): Uint8Array => Uint8Array.of(SOCKS, code, 0, ADDRESS.v4, 0, 0, 0, 0, 0, 0)

const reply4 = (code: number): Uint8Array => Uint8Array.of(0, code, 0, 0, 0, 0, 0, 0)
const answer4 = (verdict: VerdictCode): Uint8Array => reply4(verdict === "accepted" ? GRANTED4 : REJECTED4)
const answer5 = (verdict: VerdictCode): Uint8Array => reply(replyOf(verdict))

/**
 * Returns the reply for a verdict. It is the class of error that the application would have met
 * itself.
 */
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

/** State machine of one connection. */
export class Handshake {
  #kept: Uint8Array = NOTHING
  #greeted = false

  /** Takes bytes and returns the next step. Must not be called again after `Connect` or `Fail`. */
  push(bytes: Uint8Array): Step {
    this.#kept = concat([this.#kept, bytes])
    const [first] = this.#kept
    if (!this.#greeted && first !== undefined && first !== SOCKS) {
      if (first === SOCKS4) return this.#request4()
      if (first === TLS_HANDSHAKE) return fail("tls", NOTHING)
      return isLetter(first) ? this.#http() : fail("version", NOTHING)
    }
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

  /**
   * Reads a request of SOCKS4 or 4a. In 4a an address of 0.0.0.x says that a name follows. The
   * user's name is ignored.
   */
  #request4(): Step {
    const [, command] = this.#kept
    const userEnd = this.#kept.indexOf(0, 8)
    if (this.#kept.length < 9 || userEnd < 0) return this.#more(NOTHING)
    if (command !== CONNECT) return fail("command", reply4(REJECTED4))
    const address = this.#kept.subarray(4, 8)
    const isNamed = address[0] === 0 && address[1] === 0 && address[2] === 0 && address[3] !== 0
    const end = isNamed ? this.#kept.indexOf(0, userEnd + 1) : userEnd
    if (end < 0) return this.#more(NOTHING)
    const name = isNamed ? this.#kept.subarray(userEnd + 1, end) : address
    const host = hostOf(isNamed ? ADDRESS.name : ADDRESS.v4, name)
    const port = (this.#kept[2] ?? 0) << 8 | (this.#kept[3] ?? 0)
    if (host === null || port === 0) return fail("address", reply4(REJECTED4))
    return {
      _tag: "Connect",
      write: NOTHING,
      target: { host, port },
      early: this.#kept.slice(end + 1),
      answer: answer4
    }
  }

  #http(): Step {
    const isWhole = String.fromCharCode(...this.#kept.subarray(-MAX_HTTP_BYTES)).includes("\r\n\r\n")
    if (isWhole || this.#kept.length > MAX_HTTP_BYTES) return fail("http", HTTP_ANSWER)
    return { _tag: "More", write: NOTHING }
  }

  #greet(): { readonly _tag: "Ok"; readonly write: Uint8Array } | (Step & { readonly _tag: "Fail" }) | null {
    const [version, count] = this.#kept
    if (version === undefined || count === undefined || this.#kept.length < 2 + count) return null
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
    if (command !== CONNECT) return fail("command", concat([written, reply(Reply.commandNotSupported)]))
    if (kind !== ADDRESS.v4 && kind !== ADDRESS.v6 && kind !== ADDRESS.name) {
      return fail("address", concat([written, reply(Reply.addressTypeNotSupported)]))
    }
    if (nameLength === undefined) return this.#more(written)
    const from = kind === ADDRESS.name ? 5 : 4
    const to = from + (kind === ADDRESS.v4 ? 4 : kind === ADDRESS.v6 ? 16 : nameLength)
    if (this.#kept.length < to + 2) return this.#more(written)
    const host = hostOf(kind, this.#kept.subarray(from, to))
    const port = (this.#kept[to] ?? 0) << 8 | (this.#kept[to + 1] ?? 0)
    if (host === null || port === 0) return fail("address", concat([written, reply(Reply.general)]))
    return { _tag: "Connect", write: written, target: { host, port }, early: this.#kept.slice(to + 2), answer: answer5 }
  }
}

const isLetter = (byte: number): boolean => byte >= 0x41 && byte <= 0x5a

const PAGE = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>SOCKS5 proxy</title>
<h1>This port is a SOCKS5 proxy</h1>
<p>It belongs to a sallyport client. It takes SOCKS5 and SOCKS4a, and it is no web server and no HTTP proxy.</p>
<p>Set it as the SOCKS host of your browser or program, with names resolved by the proxy: <code>socks5h://HOST:PORT</code>,
or <code>curl --socks5-hostname HOST:PORT http://RESOURCE/</code>. It needs no user name and no password.</p>
</html>
`
const HTTP_ANSWER = new TextEncoder().encode(
  "HTTP/1.1 501 This is a SOCKS5 proxy\r\nContent-Type: text/html; charset=utf-8\r\n" +
    `Content-Length: ${PAGE.length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n${PAGE}`
)

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
const utf8 = (bytes: Uint8Array): string | null => {
  try {
    return decoder.decode(bytes)
  } catch {
    return null
  }
}

/**
 * Returns the host of a request as text. A name that is not ASCII becomes A-labels. `null` for
 * characters that no name or address has.
 */
const hostOf = (kind: number, bytes: Uint8Array): string | null => {
  if (kind === ADDRESS.v4) return bytes.join(".")
  if (kind === ADDRESS.v6) {
    return Array.from({ length: 8 }, (_, at) => ((bytes[at * 2] ?? 0) << 8 | (bytes[at * 2 + 1] ?? 0)).toString(16))
      .join(":")
  }
  const name = utf8(bytes)
  const ascii = name === null ? null : HostName.toAscii(name)
  return ascii !== null && /^[\x21-\x7e]{1,253}$/.test(ascii) ? ascii : null
}
