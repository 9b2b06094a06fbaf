// Stands before a relay's UDP port and holds every datagram for a while, as a long way would; this kernel has no netem.
//     node far.mjs HOST PORT TO_PORT MS
import { createSocket } from "node:dgram"

const [host, port, to, ms] = process.argv.slice(2)
const clients = new Map()
const outside = createSocket("udp4")

/** The relay tells clients apart by their ports. */
const insideOf = ({ address, port }) => {
  const key = `${address}|${port}`
  const known = clients.get(key)
  if (known) return known
  const inside = createSocket("udp4")
  inside.on("message", (bytes) => setTimeout(() => outside.send(bytes, port, address), Number(ms)))
  clients.set(key, inside)
  return inside
}

outside.on("message", (bytes, from) => setTimeout(() => insideOf(from).send(bytes, Number(to), host), Number(ms)))
outside.bind(Number(port), host, () => process.stdout.write("ready\n"))
