// The private resource of the lab: an HTTP server. `/` says hello; `/file?rate=N` serves a file at N bytes a second (0: as fast
// as it is taken); with `&hold=1` its last two mebibytes trickle until the process gets SIGUSR2; `/drip` sends a line every 50 ms for ever; `/count?rate=N` sends 1, 2, 3, ... as 32-bit numbers, big endian, for
// ever. Arguments: address, port, file.
import { readFileSync } from "node:fs"
import { createServer } from "node:http"

const [address, port, file] = process.argv.slice(2)
const body = readFileSync(file)
const STEP_MS = 20

/** What remains of a held file when it begins to trickle, and when it slows to a byte for each step. */
const HELD = 2 << 20
const HELD_LAST = 1 << 16
const TRICKLE = 256

/** Functions that let the held files go on. */
const held = new Set()
process.on("SIGUSR2", () => {
  for (const release of held) release()
  held.clear()
})

const paced = (response, rate, isHeld) => {
  let at = 0
  let full = Math.ceil(rate * STEP_MS / 1000)
  let holding = isHeld
  const release = () => {
    holding = false
    full = body.length
  }
  if (holding) held.add(release)
  const step = () => {
    const left = body.length - at
    if (!holding || left > HELD) return full
    return left > HELD_LAST ? TRICKLE : left > 1 ? 1 : 0
  }
  const timer = setInterval(() => {
    if (response.writableNeedDrain) return
    const size = step()
    response.write(body.subarray(at, at + size))
    at += size
    if (at < body.length) return
    clearInterval(timer)
    response.end()
  }, STEP_MS)
  response.once("close", () => {
    clearInterval(timer)
    held.delete(release)
  })
}

const COUNT_STEP_MS = 10

const counting = (response, rate) => {
  let next = 1
  const words = Math.ceil(rate * COUNT_STEP_MS / 1000 / 4)
  const timer = setInterval(() => {
    if (response.writableNeedDrain) return
    const part = Buffer.alloc(words * 4)
    for (let i = 0; i < words; i++) part.writeUInt32BE(next++, i * 4)
    response.write(part)
  }, COUNT_STEP_MS)
  response.once("close", () => clearInterval(timer))
}

createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://resource")
  if (pathname === "/") return response.end("hello from the resource\n")
  if (pathname === "/file") {
    const rate = Number(searchParams.get("rate") ?? 0)
    response.setHeader("content-length", body.length)
    return rate > 0 ? paced(response, rate, searchParams.has("hold")) : response.end(body)
  }
  if (pathname === "/drip") {
    const timer = setInterval(() => response.write("drip\n"), 50)
    return response.once("close", () => clearInterval(timer))
  }
  if (pathname === "/count") return counting(response, Number(searchParams.get("rate")))
  response.statusCode = 404
  response.end()
}).listen(Number(port), address, () => console.log(JSON.stringify({ event: "ready" })))
