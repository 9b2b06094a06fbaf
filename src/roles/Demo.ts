/**
 * Runs the whole product on loopback: a relay, a connector and a client as three processes, from
 * `config/demo/*.yaml`, and a real HTTP resource. Prints each step until a request has gone through
 * the relay and another one over the direct path, then keeps everything running.
 */
import { Console, Data, Duration, Effect, Schedule, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer, get, type IncomingMessage } from "node:http"
import { type AddressInfo, createServer as createTcp, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { parseDocument } from "yaml"
import { isDirect } from "../protocol/path/PathKind.ts"
import * as AdminClient from "../services/admin/AdminClient.ts"
import { load } from "../services/config/Config.ts"
import * as Socks5Client from "../transport/flow/Socks5Client.ts"
import type { Peer } from "./Running.ts"

/**
 * Error when a part of the demo failed. `message` says which part, with the last log lines of its
 * process.
 */
export class DemoFailed extends Data.TaggedError("DemoFailed")<{ readonly message: string }> {}

const PACKAGE_ROOT = fileURLToPath(new URL("../", import.meta.url)).replace(/(src|dist)\/$/, "")
const PROGRAM = join(PACKAGE_ROOT, "bin", "sallyport")
const PAYLOAD = randomBytes(1 << 20)
const PAYLOAD_SHA256 = createHash("sha256").update(PAYLOAD).digest("hex")
const RESOURCE = "hello"
const READY_DEADLINE = Duration.seconds(30)
const DIRECT_DEADLINE = Duration.seconds(20)
/** Time between two looks at the path, short enough to show when it became direct. */
const DIRECT_LOOK = Duration.millis(25)

interface Ports {
  readonly https: number
  readonly udp: number
  readonly resource: number
  readonly socks5: number
  /** Port of the client's admin API, which also serves the inspector. */
  readonly admin: number
}

/** Runs the demo until it is interrupted (Ctrl-C) or fails. */
export const demo: Effect.Effect<never, DemoFailed> = Effect.scoped(Effect.gen(function*() {
  const started = performance.now()
  const since = () => `${((performance.now() - started) / 1000).toFixed(1).padStart(5)} s`
  const say = (text: string) => Console.log(`${since()}  ${text}`)
  const ports = yield* choosePorts
  const dir = yield* workspace(ports)
  yield* serveResource(ports.resource)
  yield* say(`resource   a real HTTP server on 127.0.0.1:${ports.resource}, which only the connector is to reach`)

  yield* launch("relay", dir)
  yield* say(`relay      listening on 127.0.0.1:${ports.https} (HTTPS) and :${ports.udp} (UDP)`)
  yield* enrol(dir, "connector", "office", ["--network", "demo"])
  yield* enrol(dir, "client", "laptop", [])
  yield* Effect.all([launch("connector", dir), launch("client", dir)], { concurrency: 2 })
  yield* say("connector  enrolled, waiting; it has no inbound port")
  yield* say(`client     enrolled, SOCKS5 on 127.0.0.1:${ports.socks5}`)

  const relayed = yield* fetchThrough(ports, "/")
  const viaFirst = yield* peerOf(dir)
  yield* say(
    `through the relay in ${relayed.ms.toFixed(0)} ms: client > relay > connector > resource, HTTP ${relayed.status}` +
      ` (path now: ${viaFirst.path})`
  )
  const waiting = performance.now()
  const direct = yield* awaitDirect(peerOf(dir))
  yield* say(
    `direct after ${(performance.now() - waiting).toFixed(0)} ms: client > connector, nothing through the relay (RTT ${
      rtt(direct)
    })`
  )
  const big = yield* fetchThrough(ports, "/1MiB")
  const whole = createHash("sha256").update(big.body).digest("hex") === PAYLOAD_SHA256
  if (!whole) return yield* new DemoFailed({ message: "the payload arrived changed" })
  const after = yield* peerOf(dir)
  yield* say(
    `1 MiB over ${after.path} in ${
      big.ms.toFixed(0)
    } ms, same SHA-256; session so far: ${after.bytesIn} bytes in, ${after.bytesOut} out`
  )
  yield* Console.log(
    [
      "",
      "It keeps running. Try:",
      `  curl --socks5-hostname 127.0.0.1:${ports.socks5} http://${RESOURCE}:${ports.resource}/`,
      `  curl --socks5-hostname 127.0.0.1:${ports.socks5} http://secret:22/      # not listed: refused`,
      `  ${PROGRAM} status --config ${join(dir, "client.yaml")}`,
      `  http://127.0.0.1:${ports.admin}/      # in a browser: peers, paths, actors and flows of the client, live`,
      "Ctrl-C stops everything and removes its state.",
      ""
    ].join("\n")
  )
  return yield* Effect.never
}))

const rtt = (peer: Peer) => (peer.rttMs === null ? "not measured yet" : `${peer.rttMs.toFixed(1)} ms`)

// ---- workspace

/**
 * Chooses the ports of the config files if all are free. Otherwise, for example beside a second
 * demo, it chooses free ones; the printed lines show them.
 */
const choosePorts: Effect.Effect<Ports, DemoFailed> = Effect.promise(async () => {
  const wanted = { https: 18443, udp: 18478, resource: 18080, socks5: 11080, admin: 11090 }
  const free = await Promise.all(Object.values(wanted).map((port) => freePort(port)))
  const [https, udp, resource, socks5, admin] = free.every((port, i) => port === Object.values(wanted)[i])
    ? free
    : await Promise.all([0, 0, 0, 0, 0].map((port) => freePort(port)))
  return { https: https!, udp: udp!, resource: resource!, socks5: socks5!, admin: admin! }
})

/** Returns `port` if it can be listened on, or else a free port that the system chose. */
const freePort = (port: number): Promise<number> =>
  new Promise((resolve) => {
    const server = createTcp()
    server.once("error", () => resolve(freePort(0)))
    server.listen(port, "127.0.0.1", () => {
      const { port: got } = server.address() as AddressInfo
      server.close(() => resolve(got))
    })
  })

/**
 * Makes a temporary folder with a copy of the demo's config files, with `ports` written into it.
 * The folder is removed with the scope.
 */
const workspace = (ports: Ports): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const dir = mkdtempSync(join(tmpdir(), "sallyport-demo-"))
      cpSync(join(PACKAGE_ROOT, "config", "demo"), dir, { recursive: true })
      mkdirSync(join(dir, "state"), { mode: 0o700 })
      edit(join(dir, "relay.yaml"), [
        [["listen", "https"], `127.0.0.1:${ports.https}`],
        [["listen", "udp"], `127.0.0.1:${ports.udp}`],
        [["resources", 0, "tcp"], [ports.resource]]
      ])
      edit(join(dir, "client.yaml"), [
        [["socks5"], `127.0.0.1:${ports.socks5}`],
        [["admin"], `127.0.0.1:${ports.admin}`]
      ])
      return dir
    }),
    (dir) => Effect.sync(() => rmSync(dir, { recursive: true, force: true }))
  )

const edit = (file: string, changes: ReadonlyArray<readonly [ReadonlyArray<string | number>, unknown]>) => {
  const document = parseDocument(readFileSync(file, "utf8"))
  for (const [path, value] of changes) document.setIn(path, value)
  writeFileSync(file, document.toString())
}

const serveResource = (port: number): Effect.Effect<void, DemoFailed, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.async<ReturnType<typeof createServer>, DemoFailed>((resume) => {
      const server = createServer((request, response) => {
        if (request.url === "/1MiB") return void response.end(PAYLOAD)
        response.setHeader("content-type", "text/plain")
        response.end("Hello from a private resource. No inbound port was opened for you to read this.\n")
      })
      server.once(
        "error",
        (cause) => resume(Effect.fail(new DemoFailed({ message: `the resource cannot listen: ${cause.message}` })))
      )
      server.listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  ))

// ---- processes

const program = (dir: string, args: ReadonlyArray<string>) =>
  spawn(process.execPath, [PROGRAM, ...args], { cwd: dir, stdio: ["ignore", "pipe", "pipe"] })

/** Runs a role until the scope closes. Succeeds when the process prints that it is ready. */
const launch = (role: "relay" | "connector" | "client", dir: string): Effect.Effect<void, DemoFailed, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const more = role === "relay" ? ["--new-identity"] : []
        return program(dir, ["run", "--config", join(dir, `${role}.yaml`), "--log-format", "json", ...more])
      }),
      stop
    )
    const lastLines: Array<string> = []
    createInterface({ input: child.stderr }).on("line", (line) => {
      lastLines.push(line)
      if (lastLines.length > 5) lastLines.shift()
    })
    const failed = (what: string) => new DemoFailed({ message: [`the ${role} ${what}`, ...lastLines].join("\n  ") })
    yield* Effect.async<void, DemoFailed>((resume) => {
      createInterface({ input: child.stdout }).on("line", (line) => {
        if (line.includes("\"event\":\"ready\"")) resume(Effect.void)
      })
      child.once("exit", (code) => resume(Effect.fail(failed(`ended with code ${code}`))))
    }).pipe(Effect.timeoutFail({ duration: READY_DEADLINE, onTimeout: () => failed("did not get ready in time") }))
  })

const stop = (child: ChildProcess): Effect.Effect<void> =>
  Effect.async<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGTERM")
  }).pipe(
    Effect.timeoutTo({ duration: "6 seconds", onSuccess: () => undefined, onTimeout: () => void child.kill("SIGKILL") })
  )

/** Runs a command to its end and returns its output. */
const output = (dir: string, args: ReadonlyArray<string>): Effect.Effect<string, DemoFailed> =>
  Effect.async((resume) => {
    const child = program(dir, args)
    let out = ""
    let problem = ""
    child.stdout.on("data", (bytes) => (out += String(bytes)))
    child.stderr.on("data", (bytes) => (problem += String(bytes)))
    child.once(
      "close",
      (code) =>
        resume(
          code === 0
            ? Effect.succeed(out)
            : Effect.fail(new DemoFailed({ message: `sallyport ${args[0]}: ${problem.trim()}` }))
        )
    )
  })

const enrol = (dir: string, role: "client" | "connector", name: string, more: ReadonlyArray<string>) =>
  output(dir, ["token", "create", "--config", join(dir, "relay.yaml"), "--role", role, "--name", name, ...more]).pipe(
    Effect.map((token) => writeFileSync(join(dir, `${role}.token`), token, { mode: 0o600 }))
  )

/**
 * Asks for the peer until its path is direct, and returns it. Fails if that takes longer than the
 * demo's deadline.
 */
export const awaitDirect = <P extends Pick<Peer, "path" | "reason">>(ask: Effect.Effect<P, DemoFailed>) =>
  ask.pipe(
    Effect.filterOrFail(
      (peer) => isDirect(peer.path),
      (peer) => new DemoFailed({ message: `still ${peer.path}: ${peer.reason}` })
    ),
    Effect.retry(Schedule.spaced(DIRECT_LOOK)),
    Effect.timeoutFail({
      duration: DIRECT_DEADLINE,
      onTimeout: () => new DemoFailed({ message: `no direct path within ${Duration.format(DIRECT_DEADLINE)}` })
    })
  )

const peerOf = (dir: string): Effect.Effect<Peer, DemoFailed> =>
  load(join(dir, "client.yaml")).pipe(
    Effect.flatMap(({ admin }) => AdminClient.request(admin, "GET", "/v1/status")),
    Effect.mapError(({ message }) => new DemoFailed({ message })),
    Effect.flatMap((status) => {
      const peer = (status as { readonly peers: ReadonlyArray<Peer> }).peers[0]
      return peer === undefined
        ? Effect.fail(new DemoFailed({ message: "the client has no session" }))
        : Effect.succeed(peer)
    })
  )

// ---- request

interface Fetched {
  readonly status: number
  readonly body: Buffer
  readonly ms: number
}

/** Makes one HTTP request by the resource's name, as curl does with `--socks5-hostname`. */
const fetchThrough = (ports: Ports, path: string): Effect.Effect<Fetched, DemoFailed> =>
  Effect.tryPromise({
    try: async () => {
      const started = performance.now()
      const listener = { host: "127.0.0.1", port: ports.socks5 }
      const socket = await Socks5Client.open({ listener, host: RESOURCE, port: ports.resource, deadlineMs: 15_000 })
      const { body, status } = await request(socket, path)
      return { status, body, ms: performance.now() - started }
    },
    catch: (cause) =>
      new DemoFailed({ message: `the request failed: ${cause instanceof Error ? cause.message : String(cause)}` })
  })

const request = (socket: Socket, path: string): Promise<{ readonly status: number; readonly body: Buffer }> =>
  new Promise((resolve, reject) => {
    const onResponse = (response: IncomingMessage) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }))
      response.on("error", reject)
    }
    get({ path, host: RESOURCE, createConnection: () => socket, headers: { connection: "close" } }, onResponse).on(
      "error",
      reject
    )
  })
