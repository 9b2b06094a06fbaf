// Two name servers: one at 127.0.0.1 that reads every question and answers none, and one at 127.0.0.2 that answers from a file
// in the format of hosts(5), which it reads again for each question.     node names.mjs FILE
import { createSocket } from "node:dgram"
import { readFileSync } from "node:fs"

const [file] = process.argv.slice(2)
const A = 1
const HEAD_BYTES = 12

/** The name and type of the only question (RFC 1035, section 4.1.2). */
const questionOf = (message) => {
  const labels = []
  let at = HEAD_BYTES
  while (message[at] > 0) {
    labels.push(message.toString("latin1", at + 1, at + 1 + message[at]))
    at += 1 + message[at]
  }
  return { name: labels.join(".").toLowerCase(), type: message.readUInt16BE(at + 1), end: at + 5 }
}

const addressesOf = (name) =>
  readFileSync(file, "utf8").split("\n")
    .map((line) => line.split(/\s+/))
    .filter(([address, ...names]) => names.includes(name) && /^[\d.]+$/.test(address))
    .map(([address]) => address.split(".").map(Number))

const answerTo = (message) => {
  const { end, name, type } = questionOf(message)
  const known = addressesOf(name)
  const found = type === A ? known : []
  const head = Buffer.from(message.subarray(0, HEAD_BYTES))
  head.writeUInt16BE(known.length > 0 ? 0x8580 : 0x8583, 2) // an authoritative answer, or "no such name"
  for (const [at, count] of [[4, 1], [6, found.length], [8, 0], [10, 0]]) head.writeUInt16BE(count, at)
  // Each answer: the question's name, A, IN, TTL 0, four bytes.
  const records = found.map((address) => Buffer.from([0xc0, HEAD_BYTES, 0, A, 0, 1, 0, 0, 0, 0, 0, 4, ...address]))
  return Buffer.concat([head, message.subarray(HEAD_BYTES, end), ...records])
}

createSocket("udp4", () => {}).bind(53, "127.0.0.1")
const server = createSocket("udp4", (message, { address, port }) => server.send(answerTo(message), port, address))
server.bind(53, "127.0.0.2")
