// The private resource of the lab: an HTTP server. `/` says hello; `/file?rate=N` serves a file at N bytes a second (0: as fast
// as it is taken); `/drip` sends a line every 50 ms for ever; `/count?rate=N` sends 1, 2, 3, ... as 32-bit numbers, big endian, for
// ever. Arguments: address, port, file.
import { readFileSync } from "node:fs"
import { createServer } from "node:http"

const [address, port, file] = process.argv.slice(2)
const body = readFileSync(file)
const STEP_MS = 20

const paced = (response, rate) => {
  let at = 0
  const step = Math.ceil(rate * STEP_MS / 1000)
  const timer = setInterval(() => {
    if (response.writableNeedDrain) return
    response.write(body.subarray(at, at + step))
    at += step
    if (at < body.length) return
    clearInterval(timer)
    response.end()
  }, STEP_MS)
  response.once("close", () => clearInterval(timer))
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
    return rate > 0 ? paced(response, rate) : response.end(body)
  }
  if (pathname === "/drip") {
    const timer = setInterval(() => response.write("drip\n"), 50)
    return response.once("close", () => clearInterval(timer))
  }
  if (pathname === "/count") return counting(response, Number(searchParams.get("rate")))
  response.statusCode = 404
  response.end()
}).listen(Number(port), address, () => console.log(JSON.stringify({ event: "ready" })))
