/** A DNS server on loopback UDP that answers from a function: enough of RFC 1035 to play every mistake of a real one. */
import { Buffer } from "node:buffer"
import dgram from "node:dgram"
import { once } from "node:events"
import * as IpBytes from "../../../src/protocol/bytes/IpBytes.ts"

const TYPES = { A: 1, CNAME: 5, AAAA: 28 } as const
export type Type = keyof typeof TYPES
const RCODES = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const
export type Rcode = keyof typeof RCODES

export interface Record {
  readonly type: Type
  /** The question's name unless given. */
  readonly name?: string
  /** An address, or a name for CNAME. */
  readonly data: string
  readonly ttl?: number
}

/** `null`: no answer at all. */
export type Answer = Rcode | ReadonlyArray<Record> | null
export type Answers = (name: string, type: Type) => Answer | Promise<Answer>

export interface DnsServer {
  readonly port: number
  /** `name type` of every question, in order; names as they were sent. */
  readonly asked: Array<string>
  readonly close: () => void
}

/** Listens on `host`, at `port` or any. */
export const start = async (answers: Answers, host = "127.0.0.1", port = 0): Promise<DnsServer> => {
  const socket = dgram.createSocket("udp4")
  const asked: Array<string> = []
  socket.on("message", (message, from) => {
    const question = read(message)
    if (question === null) return
    asked.push(`${question.name} ${question.type}`)
    const reply = async () => {
      const answer = await answers(question.name.toLowerCase(), question.type)
      if (answer !== null && open) socket.send(write(message, question, answer), from.port, from.address)
    }
    void reply()
  })
  let open = true
  socket.bind(port, host)
  await once(socket, "listening")
  return {
    port: socket.address().port,
    asked,
    close: () => {
      if (open) socket.close()
      open = false
    }
  }
}

interface Question {
  readonly name: string
  readonly type: Type
  readonly end: number
}

const read = (message: Buffer): Question | null => {
  const labels: Array<string> = []
  let at = 12
  for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
    labels.push(message.toString("latin1", at + 1, at + 1 + length))
    at += 1 + length
  }
  const number = message.readUInt16BE(at + 1)
  const type = (Object.keys(TYPES) as Array<Type>).find((name) => TYPES[name] === number)
  return type === undefined ? null : { name: labels.join("."), type, end: at + 5 }
}

const write = (message: Buffer, { end, name, type: asked }: Question, answer: Exclude<Answer, null>): Buffer => {
  const records = typeof answer === "string" ? [] : answer
  const head = Buffer.from(message.subarray(0, end))
  head.writeUInt16BE(0x8180 | (typeof answer === "string" ? RCODES[answer] : 0), 2) // response, recursion desired and available
  head.writeUInt16BE(records.filter(({ type }) => type === "CNAME" || type === asked).length, 6)
  head.writeUInt32BE(0, 8)
  return Buffer.concat([
    head,
    ...records.filter(({ type }) => type === "CNAME" || type === asked).flatMap((record) => {
      const data = record.type === "CNAME" ? nameOf(record.data) : addressOf(record.data)
      const fixed = Buffer.alloc(10)
      fixed.writeUInt16BE(TYPES[record.type], 0)
      fixed.writeUInt16BE(1, 2)
      fixed.writeUInt32BE(record.ttl ?? 60, 4)
      fixed.writeUInt16BE(data.length, 8)
      return [nameOf(record.name ?? name), fixed, data]
    })
  ])
}

const nameOf = (name: string): Buffer =>
  Buffer.concat([
    ...name.split(".").map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label, "latin1")])),
    Buffer.of(0)
  ])

const addressOf = (text: string): Buffer => {
  const bytes = Buffer.alloc(16)
  return bytes.subarray(0, IpBytes.parse(text, bytes))
}
