/**
 * A relay, a connector and a client with real threads, sockets and files, in this process: their supervisors are at hand. The
 * threads run the bundle in `dist`, so build first (`npm test` does).
 */
import { Duration, Effect, Redacted, Schedule, type Scope } from "effect"
import { createSocket } from "node:dgram"
import { mkdtempSync, rmSync } from "node:fs"
import { connect, createServer, type Server, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { StreamMux } from "../../../src/actors/mux/StreamMuxRpcs.ts"
import * as Run from "../../../src/roles/Run.ts"
import type { Peer, Running } from "../../../src/roles/Running.ts"
import { type ConfigInput, decode, type RelayConfig } from "../../../src/services/config/Config.ts"
import * as Directory from "../../../src/services/directory/Directory.ts"
import * as RelayKeys from "../../../src/services/directory/RelayKeys.ts"
import * as Socks5Client from "../../../src/transport/flow/Socks5Client.ts"
import { HANG_MS } from "../../support/Hang.ts"

export interface World {
  readonly dir: string
  readonly relay: Running
  readonly connector: Running
  readonly client: Running
  readonly relayConfig: RelayConfig
  /** Of the client's SOCKS5 door. */
  readonly socks5: { readonly host: string; readonly port: number }
  readonly dial: (host: string, port: number) => Effect.Effect<Socket, Error, Scope.Scope>
  /** The same by wherever the SOCKS5 door listens now: one opened anew on port 0 has another port. */
  readonly dialAnew: World["dial"]
  /** The client's only peer. */
  readonly peer: Effect.Effect<Peer | undefined>
  readonly untilPath: (path: Peer["path"]) => Effect.Effect<Peer>
}

type RelayInput = Exclude<Extract<ConfigInput, { role: "relay" }>, { readonly join: unknown }>

export interface Options {
  readonly resources: NonNullable<RelayInput["resources"]>
  readonly access?: NonNullable<RelayInput["access"]>
  readonly placement?: "default" | "isolated"
  readonly client?: Partial<Extract<ConfigInput, { role: "client" }>>
  readonly connector?: Partial<Extract<ConfigInput, { role: "connector" }>>
  readonly node?: { readonly carrier?: "auto" | "webtransport" | "websocket" }
  readonly logs?: boolean
  /** Of the relay, so that it has the same one after a restart; 0 unless given: any. */
  readonly udpPort?: number
}

export const temporaryDir: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "sallyport-e2e-"))),
  (dir) => Effect.sync(() => rmSync(dir, { recursive: true, force: true }))
)

const settings = (
  logs: boolean
) => ({ format: "json", level: logs ? "Debug" : "None", otlp: null, sample: 1, serviceName: "test" } as const)

/** As `sallyport token create` does, beside a running relay. */
export const createToken = (
  relay: RelayConfig,
  httpsPort: number,
  role: "client" | "connector" | "relay",
  name: string,
  network: string | null
) =>
  Effect.gen(function*() {
    const keys = yield* RelayKeys.read(relay.stateDir)
    const directory = yield* Directory.Directory
    const token = yield* directory.createToken({ role, name, network, ttl: Duration.hours(1) })
    return RelayKeys.tokenText({
      keys,
      host: relay.advertise.host,
      httpsPort,
      trust: { _tag: "Pin", key: keys.tlsKey },
      token
    })
  }).pipe(Effect.provide(Directory.layer({ stateDir: relay.stateDir })))

export const make = Effect.fnUntraced(function*(options: Options) {
  const dir = yield* temporaryDir
  const begin = (input: ConfigInput) =>
    Effect.gen(function*() {
      const config = yield* decode(input, { baseDir: dir })
      const running: Running = yield* Run.start(config, settings(options.logs ?? false), {
        localDoor: false,
        newIdentity: true
      })
      return { config, running }
    })
  const placement = options.placement ?? "default"
  const relay = yield* begin({
    role: "relay",
    name: "relay",
    stateDir: "relay",
    listen: { https: "127.0.0.1:0", udp: `127.0.0.1:${options.udpPort ?? 0}` },
    advertise: { host: "127.0.0.1" },
    resources: options.resources,
    access: options.access ?? [{ clients: ["laptop"], resources: ["*"] }]
  })
  const relayConfig = relay.config as RelayConfig
  const https = Number(relay.running.listen["https"]?.split(":").at(-1))
  const enrolled = (role: "client" | "connector", name: string, network: string | null, more: object) =>
    Effect.gen(function*() {
      const token = yield* createToken(relayConfig, https, role, name, network)
      const input = { role, name, stateDir: name, token: Redacted.make(token), placement, ...options.node, ...more }
      return (yield* begin(input)).running
    })
  const connector = yield* enrolled("connector", "office", "default", options.connector ?? {})
  const client = yield* enrolled("client", "laptop", null, { socks5: "127.0.0.1:0", ...options.client })
  const [host = "", port = ""] = (client.listen["socks5"] ?? "").split(":")
  const socks5 = { host, port: Number(port) }
  const peer = Effect.map(Effect.orDie(client.status), ({ peers }) => peers[0])
  return {
    dir,
    relay: relay.running,
    connector,
    client,
    relayConfig,
    socks5,
    dial: (target, at) => dialBy(socks5, target, at),
    dialAnew: (target, at) =>
      client.supervisor.ref(StreamMux).ask((mux) => mux.Listeners()).pipe(
        Effect.flatMap((listeners) => {
          const [, now = ""] = (listeners.find(({ name }) => name === "socks5")?.address ?? "").split(":")
          return dialBy({ host: socks5.host, port: Number(now) }, target, at)
        })
      ),
    peer,
    untilPath: (path) =>
      peer.pipe(
        Effect.filterOrFail((found) => found?.path === path, (found) =>
          new Error(`the path is ${found?.path}: ${found?.reason}`)),
        Effect.map((found) =>
          found as Peer
        ),
        Effect.retry({ schedule: spaced, times: 6000 }),
        Effect.orDie
      )
  } satisfies World
})

/** That nobody has just now. */
export const freeUdpPort = Effect.async<number>((resume) => {
  const socket = createSocket("udp4")
  socket.bind(0, "127.0.0.1", () => {
    const { port } = socket.address()
    socket.close(() => resume(Effect.succeed(port)))
  })
})

export const spaced = Schedule.spaced("20 millis")

/** Through the SOCKS5 door at `listener`. */
export const dialBy = (listener: { readonly host: string; readonly port: number }, target: string, at: number) =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: () => Socks5Client.open({ listener, host: target, port: at, deadlineMs: HANG_MS }),
      catch: (cause) => cause as Error
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** A TCP server on loopback; answers with its port. */
export const serve = (onSocket: (socket: Socket) => void): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.async<Server>((resume) => {
        const server = createServer({ allowHalfOpen: true }, (socket) => {
          socket.on("error", () => undefined)
          onSocket(socket)
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.sync(() => server.close())
    ),
    (server) => (server.address() as { port: number }).port
  )

export const connectTo = (
  to: { readonly host: string; readonly port: number }
): Effect.Effect<Socket, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<Socket, Error>((resume) => {
      const socket = connect({ ...to, allowHalfOpen: true })
      socket.once("error", (error) => resume(Effect.fail(error)))
      socket.once("connect", () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )
