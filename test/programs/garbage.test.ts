/**
 * Garbage at every port of all three processes while a flow runs. Small unless `SALLYPORT_FULL=1`, which takes minutes
 * (`npm run test:programs:full`); either prints its figures. On loopback, but the datagrams are no faster than readers are.
 */
import { Effect } from "effect"
import { randomBytes, randomInt } from "node:crypto"
import { createSocket } from "node:dgram"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import net, { type NetConnectOpts, type Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { connect as connectTls } from "node:tls"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import * as Stun from "../../src/protocol/nat/Stun.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import { load } from "../../src/services/config/Config.ts"
import { HANG_MS } from "../support/Hang.ts"
import { freePort } from "../support/Ports.ts"
import { type Program, resource, type Role, serve, type Served, until, World } from "./support/Programs.ts"

const FULL = process.env["SALLYPORT_FULL"] === "1"
/** At each UDP port. */
const DATAGRAMS = FULL ? 100_000 : 4_000
/** At each TCP port and each admin socket. */
const CONNECTIONS = FULL ? 1_000 : 100
const AT_ONCE = 50
const TIMEOUT_MS = FULL ? 480_000 : 120_000
const GROWTH_MIB = 64
/** Of each process, whatever came in. */
const LOG_LINES = 100
/** How a hostile packet may begin: STUN, our frames, a relay's control message, QUIC, or anything. */
const FIRST = [0x00, 0x01, 0x20, 0x21, 0x25, 0x30, 0x35, 0x40, 0xc0]

// ------------------------------------------------------------------------------------------------------ what is sent

const framed = (inside: Uint8Array, tag: number | null): Buffer => {
  const head = tag === null ? Frame.DIRECT_HEAD_BYTES : Frame.RELAYED_HEAD_BYTES
  const bytes = Buffer.alloc(head + inside.length)
  if (tag === null) Frame.writeDirectHead(bytes, 0, bytes.length)
  else Frame.writeRelayedHead(bytes, 0, bytes.length, tag)
  bytes.set(inside, head)
  return bytes
}

/** A QUIC version 1 Initial packet as far as its unprotected head goes (RFC 9000, section 17.2.2). */
const initial = () =>
  Buffer.concat([
    Buffer.from([0xc3, 0, 0, 0, 1, 8]),
    randomBytes(8),
    Buffer.from([0, 0, 0x44, 0xa0]),
    randomBytes(1184)
  ])

/** Whole and right in form. */
const valid: ReadonlyArray<() => Uint8Array> = [
  () => Stun.encodeRequest({ txId: randomBytes(Stun.TX_ID_BYTES) }),
  () => RelayWire.encode({ _tag: "BindRequest", nonce: randomBytes(RelayWire.NONCE_BYTES) }),
  initial,
  () => framed(initial(), null),
  () => framed(initial(), randomInt(1, 2 ** 47)),
  () => framed(Buffer.concat([Buffer.from([1]), randomBytes(80)]), null)
]

/** A packet that is right but for a few bits, its end, or what comes behind. */
const mutated = (): Buffer => {
  const bytes = Buffer.from(valid[randomInt(valid.length)]!())
  for (let flips = randomInt(4); flips > 0; flips--) {
    const at = randomInt(bytes.length)
    bytes[at] = bytes[at]! ^ 1 << randomInt(8)
  }
  const cut = randomInt(3)
  if (cut === 0) return bytes.subarray(0, randomInt(1, bytes.length + 1))
  return cut === 1 ? Buffer.concat([bytes, randomBytes(randomInt(1, 40))]) : bytes
}

const random = (): Buffer => {
  const bytes = randomBytes(randomInt(1, 1400))
  if (randomInt(4) > 0) bytes[0] = FIRST[randomInt(FIRST.length)]!
  return bytes
}

const HTTP =
  "PUT /v1/nonsense HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 9999999\r\n\r\n"
const openings: ReadonlyArray<() => Uint8Array> = [
  () => randomBytes(randomInt(1, 4000)),
  () => Buffer.from([5, 1, 0, ...randomBytes(300)]),
  () => Buffer.from([5, 1, 0, 5, 1, 0, 3, 255, ...randomBytes(40)]),
  () => Buffer.from([0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3, ...randomBytes(500)]),
  () => Buffer.from(HTTP + randomBytes(500).toString("latin1"), "latin1"),
  () => Buffer.from(`GET /${"a".repeat(20_000)} HTTP/1.1\r\n\r\n`),
  () => new Uint8Array(0)
]

// ------------------------------------------------------------------------------------------------------ where it goes

interface UdpPort {
  readonly family: "udp4" | "udp6"
  readonly port: number
  readonly inode: string
}

/** The rows of `/proc/net/<name>`, by proc(5). */
const table = (name: string) =>
  readFileSync(`/proc/net/${name}`, "utf8").trim().split("\n").slice(1).map((line) => {
    const fields = line.trim().split(/\s+/)
    const port = Number.parseInt(fields[1]?.split(":")[1] ?? "", 16)
    return { port, state: fields[3], inode: fields[9] ?? "", dropped: Number(fields.at(-1)) }
  })

/** Every UDP and TCP port that a process has open, from the system itself. */
const portsOf = (pid: number) => {
  const inodes = new Set<string>()
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      inodes.add(/^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? "")
    } catch {} // closed meanwhile
  }
  const own = (name: string, state: string) => table(name).filter((row) => inodes.has(row.inode) && row.state === state)
  const [LISTEN, UNCONNECTED] = ["0A", "07"]
  const udp = (["udp4", "udp6"] as const).flatMap((family): ReadonlyArray<UdpPort> =>
    own(family === "udp4" ? "udp" : "udp6", UNCONNECTED).map(({ inode, port }) => ({ family, port, inode }))
  )
  return { tcp: [...new Set([...own("tcp", LISTEN), ...own("tcp6", LISTEN)].map(({ port }) => port))], udp }
}

/** Datagrams that the system threw away, since the reader was too slow. */
const droppedAt = ({ family, inode }: UdpPort): number =>
  table(family === "udp4" ? "udp" : "udp6").find((row) => row.inode === inode)?.dropped ?? 0

const spray = async (to: UdpPort): Promise<void> => {
  const socket = createSocket(to.family)
  const host = to.family === "udp4" ? "127.0.0.1" : "::1"
  for (let sent = 0; sent < DATAGRAMS; sent++) {
    socket.send(randomInt(2) === 0 ? mutated() : random(), to.port, host, () => undefined)
    if (sent % 100 === 0) await sleep(2)
  }
  await sleep(100) // for the last ones; what comes back is of no interest
  socket.close()
}

const intrude = (to: NetConnectOpts, tls: boolean): Promise<void> =>
  new Promise((resolve) => {
    const socket = tls ? connectTls({ ...to, rejectUnauthorized: false }) : net.connect(to)
    socket.on("error", () => undefined).once("close", () => resolve())
    socket.resume()
    socket.write(openings[randomInt(openings.length)]!())
    setTimeout(() => socket.destroy(), randomInt(20, 400))
  })

const invade = async (to: NetConnectOpts): Promise<void> => {
  for (let batch = 0; batch < CONNECTIONS; batch += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, one) => intrude(to, one % 4 === 0)))
  }
}

// ------------------------------------------------------------------------------------------------------ what must live

/** Sends and gets back 64 KiB every few milliseconds, and remembers the first wrong byte. */
const flow = (socket: Socket) => {
  const block = randomBytes(64 * 1024)
  let [echoed, longestMs, last, over] = [0, 0, performance.now(), false]
  let fault: string | null = null
  socket.on("error", ({ message }) => (fault ??= message)).on("close", () => over || (fault ??= "closed"))
  socket.on("data", (part: Buffer) => {
    const now = performance.now()
    longestMs = Math.max(longestMs, now - last)
    last = now
    for (let at = 0; at < part.length;) {
      const from = echoed % block.length
      const length = Math.min(part.length - at, block.length - from)
      if (part.compare(block, from, from + length, at, at + length) !== 0) fault ??= `changed after ${echoed} bytes`
      at += length
      echoed += length
    }
    if (echoed % block.length === 0 && !over) setTimeout(() => socket.write(block), 5)
  })
  socket.write(block)
  return {
    state: () => ({ echoed, fault, longestMs }),
    end: () => {
      over = true
      socket.destroy()
    }
  }
}

describe("garbage at every port", () => {
  let world: World
  let server: Served

  beforeAll(async () => {
    server = await serve((socket) => void socket.pipe(socket))
    const forward = { listen: `127.0.0.1:${await freePort()}`, resource: "echo", port: server.port }
    world = await World.start({ resources: [resource("echo", server.port)], client: { forwards: [forward] } })
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    server?.close()
  })

  const adminOf = async (role: Role): Promise<NetConnectOpts> => {
    const { admin } = await Effect.runPromise(load(world.file(role)))
    assert.strictEqual(admin._tag, "Unix")
    return { path: admin._tag === "Unix" ? admin.path : "" }
  }

  const attack = async (role: Role, program: Program) => {
    const { tcp, udp } = portsOf(program.pid)
    assert.isNotEmpty(udp, role)
    assert.lengthOf(tcp, { relay: 1, client: 2, connector: 0 }[role], `${role}: a connector has no inbound port`)
    const [rss, said] = [program.rss().now, program.said]
    const before = udp.map(droppedAt)
    for (const port of udp) await spray(port)
    const lost = udp.reduce((sum, port, at) => sum + droppedAt(port) - before[at]!, 0)
    for (const port of tcp) await invade({ host: "127.0.0.1", port })
    await invade(await adminOf(role))
    const sent = udp.length * DATAGRAMS
    const doors = tcp.length + 1
    return { role, program, rss, said, sent, lost, connections: doors * CONNECTIONS }
  }

  it("harms no flow, fills no memory and no log", async () => {
    const running = flow(await world.dial("echo", server.port))
    await world.direct()
    await until("the flow runs", () => running.state().echoed > 16 << 20 || null, HANG_MS)
    const attacked: Array<Awaited<ReturnType<typeof attack>>> = []
    for (const role of ["relay", "client", "connector"] as const) attacked.push(await attack(role, world.program(role)))
    const middle = running.state()
    assert.isNull(middle.fault)
    await until("the flow runs on", () => running.state().echoed > middle.echoed + (1 << 20) || null, HANG_MS)
    const { echoed, fault, longestMs } = running.state()
    const figures = attacked.map(({ connections, lost, program, role, rss, said, sent }) => {
      const { now, peak } = program.rss()
      const lines = program.said - said
      return { role, sent, lost, connections, lines, rssMiB: [rss, now, peak].map(Math.round) }
    })
    process.stderr.write(
      `garbage (RSS before, after, peak): ${JSON.stringify(figures)}; the flow got ${echoed >> 20} MiB, longest stall ${
        longestMs.toFixed(0)
      } ms\n`
    )
    assert.isNull(fault)
    for (const { lines, lost, role, rssMiB: [before = 0, now = 0], sent } of figures) {
      assert.isTrue(world.program(role).running, role)
      assert.isBelow(lost, sent / 2, `${role}: most of it was read`)
      assert.isAtMost(now - before, GROWTH_MIB, role)
      assert.isAtMost(lines, LOG_LINES, role)
      assert.isEmpty(world.program(role).lines.filter((line) => /internal error|"level":"FATAL"/.test(line)), role)
    }
    running.end()
    const fresh = await world.dial("echo", server.port)
    fresh.end("still here")
    assert.strictEqual((await fresh.toArray()).join(""), "still here")
  }, TIMEOUT_MS)
})
