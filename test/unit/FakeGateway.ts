/** A gateway on this host's loopback: PCP, NAT-PMP and UPnP-IGD, each on a port of its own, and what was asked of it. */
import { Effect, type Scope } from "effect"
import { createSocket, type RemoteInfo, type Socket } from "node:dgram"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

export const HOST = "127.0.0.1"

export interface FakeGateway {
  /** What it speaks; may be changed at any time. */
  speaks: ReadonlyArray<"pcp" | "nat-pmp" | "upnp">
  external: string
  lifetimeS: number
  /** When it lost its state last, ms since 1970. */
  bornMs: number
  /** UPnP: what it answers to AddPortMapping, by turns; 0 is yes. */
  addCodes: Array<number>
  /** `map PORT LIFETIME`, `unmap PORT`, each with the protocol before it. */
  readonly asked: Array<string>
  readonly nonces: Set<string>
  readonly port: number
  readonly ssdpPort: number
  /** A free port, for announcements. */
  readonly announcePort: number
}

const EXTERNAL_OFFSET = 1000 // a gateway that gives another port than it was asked for

export const make: Effect.Effect<FakeGateway, never, Scope.Scope> = Effect.gen(function*() {
  const udp = yield* bound
  const ssdp = yield* bound
  const spare = yield* bound
  const http = yield* Effect.acquireRelease(
    Effect.async<ReturnType<typeof createServer>>((resume) => {
      const server = createServer()
      server.listen(0, HOST, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close().closeAllConnections())
  )
  const announcePort = spare.address().port
  spare.close()
  const gateway: FakeGateway = {
    speaks: ["pcp", "nat-pmp", "upnp"],
    external: "198.51.100.7",
    lifetimeS: 600,
    bornMs: Date.now() - 100_000,
    addCodes: [],
    asked: [],
    nonces: new Set(),
    port: udp.address().port,
    ssdpPort: ssdp.address().port,
    announcePort
  }
  udp.on("message", (bytes, from) => {
    const answer = bytes[0] === 2 ? pcp(gateway, bytes) : natPmp(gateway, bytes)
    if (answer !== null) reply(udp, answer, from)
  })
  ssdp.on("message", (bytes, from) => {
    if (!gateway.speaks.includes("upnp") || !String(bytes).startsWith("M-SEARCH")) return
    const location = `http://${HOST}:${(http.address() as AddressInfo).port}/root.xml`
    reply(ssdp, Buffer.from(`HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.66/evil.xml\r\n\r\n`), from)
    reply(ssdp, Buffer.from(`HTTP/1.1 200 OK\r\nLOCATION: ${location}\r\n\r\n`), from)
  })
  http.on("request", (request, response) => {
    let body = ""
    request.on("data", (part) => (body += String(part)))
    request.on("end", () => {
      const { status, text } = request.url === "/root.xml" ? { status: 200, text: DESCRIPTION } : soap(gateway, body)
      response.writeHead(status, { "content-type": "text/xml" }).end(text)
    })
  })
  return gateway
})

/** Says to everybody on the link that it started anew. */
export const restart = (gateway: FakeGateway): Effect.Effect<void, never, Scope.Scope> =>
  Effect.map(bound, (socket) => {
    gateway.bornMs = Date.now()
    socket.send(head(2, 0x80, 0, epochS(gateway), 24), gateway.announcePort, HOST)
  })

const bound = Effect.acquireRelease(
  Effect.async<Socket>((resume) => {
    const socket = createSocket("udp4")
    socket.bind(0, HOST, () => resume(Effect.succeed(socket)))
  }),
  (socket) =>
    Effect.sync(() => {
      try {
        socket.close()
      } catch {
        // It was closed before.
      }
    })
)

const reply = (socket: Socket, bytes: Uint8Array, to: RemoteInfo) => socket.send(bytes, to.port, to.address)
const epochS = ({ bornMs }: FakeGateway) => Math.floor((Date.now() - bornMs) / 1000)

const head = (version: number, opcode: number, lifetimeS: number, epoch: number, length: number): Buffer => {
  const out = Buffer.alloc(length)
  out[0] = version
  out[1] = opcode
  out.writeUInt32BE(lifetimeS, 4)
  out.writeUInt32BE(epoch, 8)
  return out
}

const note = (gateway: FakeGateway, protocol: string, port: number, lifetimeS: number) =>
  gateway.asked.push(lifetimeS === 0 ? `${protocol} unmap ${port}` : `${protocol} map ${port} ${lifetimeS}`)

const octets = (host: string) => host.split(".").map(Number)

const pcp = (gateway: FakeGateway, bytes: Buffer): Buffer | null => {
  if (!gateway.speaks.includes("pcp")) {
    return gateway.speaks.includes("nat-pmp") ? Buffer.from([0, 0x80 | bytes[1]!, 0, 1, 0, 0, 0, 1]) : null
  }
  const lifetimeS = bytes.readUInt32BE(4) === 0 ? 0 : gateway.lifetimeS
  if (bytes[1] === 0) return head(2, 0x80, 0, epochS(gateway), 24)
  note(gateway, "pcp", bytes.readUInt16BE(40), bytes.readUInt32BE(4))
  gateway.nonces.add(bytes.toString("hex", 24, 36))
  const out = head(2, 0x81, lifetimeS, epochS(gateway), 60)
  bytes.copy(out, 24, 24, 42)
  out.writeUInt16BE(bytes.readUInt16BE(40) + EXTERNAL_OFFSET, 42)
  out.set([0xff, 0xff, ...octets(gateway.external)], 54)
  return out
}

const natPmp = (gateway: FakeGateway, bytes: Buffer): Buffer | null => {
  if (!gateway.speaks.includes("nat-pmp")) return null
  const out = Buffer.alloc(bytes[1] === 0 ? 12 : 16)
  out[1] = 0x80 | bytes[1]!
  out.writeUInt32BE(epochS(gateway), 4)
  if (bytes[1] === 0) out.set(octets(gateway.external), 8)
  else {
    const lifetimeS = bytes.readUInt32BE(8)
    note(gateway, "nat-pmp", bytes.readUInt16BE(4), lifetimeS)
    out.writeUInt16BE(bytes.readUInt16BE(4), 8)
    out.writeUInt16BE(lifetimeS === 0 ? 0 : bytes.readUInt16BE(4) + EXTERNAL_OFFSET, 10)
    out.writeUInt32BE(lifetimeS === 0 ? 0 : gateway.lifetimeS, 12)
  }
  return out
}

const TYPE = "urn:schemas-upnp-org:service:WANIPConnection:1"
const DESCRIPTION = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList><service>
  <serviceType>${TYPE}</serviceType><controlURL>/ctl</controlURL></service></serviceList></device></root>`

const soap = (gateway: FakeGateway, body: string): { readonly status: number; readonly text: string } => {
  const field = (name: string) => new RegExp(`<${name}>([^<]*)<`).exec(body)?.[1] ?? ""
  const action = /<u:(\w+)/.exec(body)?.[1] ?? ""
  const code = action === "AddPortMapping" ? gateway.addCodes.shift() ?? 0 : 0
  const port = Number(field("NewExternalPort"))
  if (action === "AddPortMapping") {
    gateway.asked.push(`upnp map ${port} ${field("NewLeaseDuration")} to ${field("NewInternalClient")}`)
  } else if (action === "DeletePortMapping") gateway.asked.push(`upnp unmap ${port}`)
  const inner = code === 0
    ? `<u:${action}Response xmlns:u="${TYPE}"><NewExternalIPAddress>${gateway.external}</NewExternalIPAddress></u:${action}Response>`
    : `<s:Fault><detail><UPnPError><errorCode>${code}</errorCode></UPnPError></detail></s:Fault>`
  const text = `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>${inner}</s:Body></s:Envelope>`
  return { status: code === 0 ? 200 : 500, text }
}
