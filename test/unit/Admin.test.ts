import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Schedule, Scope } from "effect"
import { spawn } from "node:child_process"
import { existsSync, lstatSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createServer, type IncomingHttpHeaders, type IncomingMessage, request as httpRequest } from "node:http"
import { createServer as createTcpServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import * as AdminClient from "../../src/services/admin/AdminClient.ts"
import { AdminError } from "../../src/services/admin/AdminError.ts"
import * as AdminServer from "../../src/services/admin/AdminServer.ts"

const dir = mkdtempSync(join(tmpdir(), "admin-"))
afterAll(() => rmSync(dir, { recursive: true }))

let sockets = 0
const unix = () => ({ _tag: "Unix", path: join(dir, `${sockets++}.sock`) }) as const
const LOOPBACK = { _tag: "Tcp", host: "127.0.0.1", port: 0, allowRemote: false, allowHosts: [] } as const

const FLOOD = 256
const EVENT_CHARS = 65_536

const routes: AdminServer.Routes = {
  "GET /v1/status": () => Effect.succeed({ peers: [], sent: 12n }),
  "POST /v1/echo": (body) => Effect.succeed(body),
  "POST /v1/drain": (body) => Effect.succeed(body),
  "POST /v1/missing": () => new AdminError({ code: "not_found", message: "no such node" }),
  "GET /v1/bug": () => Effect.die(new Error("a secret detail")),
  "GET /metrics": () => Effect.succeed(new AdminServer.Text("up 1\n", "text/plain; version=0.0.4")),
  "GET /v1/events": () =>
    Effect.succeed(
      new AdminServer.Events((send) => {
        send({ n: 1n })
        return () => undefined
      })
    ),
  "GET /v1/flood": () =>
    Effect.succeed(
      new AdminServer.Events((send) => {
        for (let sent = 0; sent < FLOOD; sent++) send("x".repeat(EVENT_CHARS))
        return () => undefined
      })
    ),
  "GET /v1/circle": () => {
    const circle: Record<string, unknown> = {}
    circle["self"] = circle
    return Effect.succeed(circle)
  }
}

type Raw = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly text: string }

/** A request as any program on the network could make it. */
const raw = (
  port: number,
  options: {
    readonly method?: string
    readonly path?: string
    readonly headers?: Readonly<Record<string, string>>
    readonly body?: string
  }
) =>
  Effect.async<Raw>((resume) => {
    const { body = "", headers = {}, method = "GET", path = "/v1/status" } = options
    const asked = httpRequest({ host: "127.0.0.1", port, method, path, headers, agent: false }, (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => text += chunk)
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers, text })))
      response.on("error", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers, text })))
    })
    asked.on("error", () => {})
    asked.end(body)
  })

const startTcp = Effect.gen(function*() {
  const { endpoint } = yield* AdminServer.make({ listen: LOOPBACK, routes })
  assert(endpoint._tag === "Tcp")
  return endpoint.port
})

describe("changes", () => {
  const HERE: ReadonlyArray<readonly [local: string, remote: string, isHere: boolean]> = [
    ["127.0.0.1", "127.0.0.1", true],
    ["127.0.0.1", "127.0.0.53", true],
    ["::ffff:127.0.0.1", "::ffff:127.0.0.1", true],
    ["::1", "::1", true],
    ["192.0.2.7", "192.0.2.7", true],
    ["::ffff:192.0.2.7", "::ffff:192.0.2.7", true],
    ["192.0.2.7", "192.0.2.8", false],
    ["2001:db8::1", "2001:db8::2", false],
    ["192.0.2.7", "", false]
  ]
  for (const [local, remote, isHere] of HERE) {
    it(`are ${isHere ? "allowed" : "refused"} to ${remote || "nobody known"} at ${local}`, () => {
      assert.strictEqual(AdminServer.isFromHere(local, remote), isHere)
    })
  }

  it.scopedLive("are for programs on this machine", () =>
    Effect.gen(function*() {
      const port = yield* startTcp
      const body = "{\"drain\":true}"
      const headers = { host: `127.0.0.1:${port}`, "content-type": "application/json" }
      const asked = { method: "POST", path: "/v1/drain", headers, body }
      assert.deepStrictEqual(JSON.parse((yield* raw(port, asked)).text), { drain: true })
      const page = yield* raw(port, { ...asked, headers: { ...headers, origin: "http://evil.example" } })
      assert.strictEqual(page.status, 403)
    }))
})

describe("events", () => {
  /** Its head, or what it was refused with; open until it is destroyed. */
  const open = (port: number, path = "/v1/events") =>
    Effect.async<IncomingMessage>((resume) => {
      httpRequest({ host: "127.0.0.1", port, path, agent: false }, (it) => resume(Effect.succeed(it)))
        .end()
    })
  const textOf = (response: IncomingMessage) => Effect.promise(async () => (await response.toArray()).join(""))

  it.scopedLive("accept sixteen readers, and another one when one leaves", () =>
    Effect.gen(function*() {
      const port = yield* startTcp
      const readers = yield* Effect.all(Array.from({ length: 16 }, () => open(port)))
      assert.deepStrictEqual(new Set(readers.map(({ statusCode }) => statusCode)), new Set([200]))
      const [first] = readers
      const seen = yield* Effect.async<string>((resume) => {
        first?.once("data", (chunk) => resume(Effect.succeed(String(chunk))))
      })
      assert.strictEqual(seen, "data: {\"n\":1}\n\n")
      const refused = yield* open(port)
      assert.strictEqual(refused.statusCode, 503)
      assert.match(yield* textOf(refused), /too many event streams are open; close a page/)
      first?.destroy()
      yield* open(port).pipe(
        Effect.filterOrFail(({ statusCode }) => statusCode === 200),
        Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 6000 })
      )
    }))

  it.scopedLive("end for a reader who leaves a mebibyte unread", () =>
    Effect.gen(function*() {
      const port = yield* startTcp
      const reader = yield* open(port, "/v1/flood")
      const read = yield* Effect.async<number>((resume) => {
        let bytes = 0
        reader.on("data", (chunk: Buffer) => bytes += chunk.length)
        reader.on("error", () => resume(Effect.sync(() => bytes)))
      })
      assert.isBelow(read, FLOOD * EVENT_CHARS)
    }))
})

describe("answers", () => {
  it.scoped("speaks JSON on a socket for its owner only", () =>
    Effect.gen(function*() {
      const listen = unix()
      yield* AdminServer.make({ listen, routes })
      assert.strictEqual(statSync(listen.path).mode & 0o777, 0o600)
      assert.deepStrictEqual(yield* AdminClient.request(listen, "GET", "/v1/status?x=1"), { peers: [], sent: 12 })
      assert.deepStrictEqual(yield* AdminClient.request(listen, "POST", "/v1/echo", { a: ["é"] }), { a: ["é"] })
      assert.strictEqual(yield* AdminClient.request(listen, "GET", "/metrics"), "up 1\n")
    }))

  it.scoped("passes on a route's refusal, and hides internal errors", () =>
    Effect.gen(function*() {
      const listen = unix()
      yield* AdminServer.make({ listen, routes })
      const refusal = (method: "GET" | "POST", path: string) =>
        Effect.map(Effect.flip(AdminClient.request(listen, method, path)), (error) => {
          assert(error._tag === "Refused")
          return [error.code, error.message]
        })
      assert.deepStrictEqual(yield* refusal("POST", "/v1/missing"), ["not_found", "no such node"])
      assert.deepStrictEqual(yield* refusal("GET", "/v1/echo"), ["method_not_allowed", "this path takes POST /v1/echo"])
      assert.strictEqual((yield* refusal("GET", "/v1/none"))[0], "not_found")
      assert.strictEqual((yield* refusal("GET", "/__proto__"))[0], "not_found")
      for (const path of ["/v1/bug", "/v1/circle"]) {
        assert.deepStrictEqual(yield* refusal("GET", path), [
          "internal",
          "this request failed inside sallyport; see its log"
        ])
      }
      assert.deepStrictEqual(yield* AdminClient.request(listen, "GET", "/v1/status"), { peers: [], sent: 12 })
    }))

  it.scoped("accepts a body of 64 KiB, not one byte more", () =>
    Effect.gen(function*() {
      const port = yield* startTcp
      const post = (bytes: number, headers: Readonly<Record<string, string>> = {}) =>
        raw(port, {
          method: "POST",
          path: "/v1/echo",
          headers: { "content-type": "application/json", ...headers },
          body: `"${"x".repeat(bytes - 2)}"`
        })
      assert.strictEqual((yield* post(AdminServer.MAX_BODY_BYTES)).status, 200)
      const refused = yield* post(AdminServer.MAX_BODY_BYTES + 1)
      assert.strictEqual(refused.status, 413)
      assert.include(refused.text, "the body is larger than 65536 bytes")
      assert.strictEqual((yield* post(AdminServer.MAX_BODY_BYTES * 20, { "transfer-encoding": "chunked" })).status, 413)
    }))

  it.scoped("refuses a body that is not marked as JSON", () =>
    Effect.gen(function*() {
      const port = yield* startTcp
      const post = (contentType: string, body: string) =>
        Effect.map(
          raw(port, { method: "POST", path: "/v1/echo", headers: { "content-type": contentType }, body }),
          ({ status }) => status
        )
      assert.strictEqual(yield* post("application/json; charset=utf-8", "{}"), 200)
      assert.strictEqual(yield* post("application/json", "{"), 400)
      assert.strictEqual(yield* post("text/plain", "{}"), 415)
    }))
})

describe("who may ask over TCP", () => {
  it.scoped("refuses requests for another host or from another origin", () =>
    Effect.gen(function*() {
      const port = yield* startTcp
      for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `LOCALHOST:${port}`]) {
        assert.strictEqual(yield* status(port, { host }), 200, host)
      }
      for (
        const host of [
          "127.0.0.1",
          `evil.example:${port}`,
          `127.0.0.1.evil.example:${port}`,
          `localhost:${port + 1}`,
          `127.0.0.2:${port}`
        ]
      ) {
        assert.strictEqual(yield* status(port, { host }), 403, host)
      }
      const host = `localhost:${port}`
      assert.strictEqual(yield* status(port, { host, origin: `http://${host}` }), 200)
      assert.strictEqual(yield* status(port, { host, origin: "http://evil.example" }), 403)
      assert.strictEqual(yield* status(port, { host, origin: "null" }), 403)
    }))

  it.scoped("accepts any IP address but no other name when remote", () =>
    Effect.gen(function*() {
      const { endpoint } = yield* AdminServer.make({
        listen: { ...LOOPBACK, host: "0.0.0.0", allowRemote: true },
        routes
      })
      assert(endpoint._tag === "Tcp")
      const { port } = endpoint
      assert.strictEqual(yield* status(port, { host: `192.0.2.7:${port}` }), 200)
      assert.strictEqual(yield* status(port, { host: `[2001:db8::1]:${port}` }), 200)
      assert.strictEqual(yield* status(port, { host: `evil.example:${port}` }), 403)
      assert.deepStrictEqual(yield* AdminClient.request(endpoint, "GET", "/v1/status"), { peers: [], sent: 12 })
    }))
})

/** The status of a GET with these headers. */
const status = (port: number, headers: Readonly<Record<string, string>>, path = "/v1/status") =>
  Effect.map(raw(port, { headers, path }), ({ status }) => status)

describe("scrapers and probes", () => {
  const health = { "GET /healthz": () => Effect.succeed("ok"), "GET /metrics": () => Effect.succeed("ok"), ...routes }
  const listening = (over: object) =>
    Effect.map(
      AdminServer.make({ listen: { ...LOOPBACK, host: "0.0.0.0", allowRemote: true, ...over }, routes: health }),
      ({ endpoint }) => endpoint._tag === "Tcp" ? endpoint.port : 0
    )

  it.scoped("are answered by any name, and nothing else is", () =>
    Effect.gen(function*() {
      const port = yield* listening({})
      for (const path of ["/healthz", "/metrics", "/metrics?x=1"]) {
        assert.strictEqual(yield* status(port, { host: `connector:${port}` }, path), 200, path)
        assert.strictEqual(yield* status(port, { host: "connector", origin: "http://evil.example" }, path), 403, path)
      }
      assert.strictEqual(yield* status(port, { host: `connector:${port}` }), 403)
      const local = yield* listening({ host: "127.0.0.1", allowRemote: false })
      assert.strictEqual(yield* status(local, { host: `connector:${local}` }, "/metrics"), 403)
    }))

  it.scoped("takes names that the configuration lists, with any port", () =>
    Effect.gen(function*() {
      const port = yield* listening({ allowHosts: ["connector"] })
      for (const host of [`connector:${port}`, "connector:80", "Connector"]) {
        assert.strictEqual(yield* status(port, { host }), 200, host)
      }
      assert.strictEqual(yield* status(port, { host: `connector.evil.example:${port}` }), 403)
    }))
})

describe("two processes", () => {
  it.scoped("refuses to start beside a live one, which stays", () =>
    Effect.gen(function*() {
      const listen = unix()
      yield* AdminServer.make({ listen, routes })
      const error = yield* Effect.flip(AdminServer.make({ listen, routes }))
      assert.strictEqual(error.reason, "InUse")
      assert.strictEqual(
        error.message,
        `another sallyport runs with this stateDir (it answers on ${listen.path}); stop it first, or give this one a stateDir of its own`
      )
      assert.deepStrictEqual(yield* AdminClient.request(listen, "GET", "/v1/status"), { peers: [], sent: 12 })
    }))

  it.scoped("replaces the socket of one that was killed", () =>
    Effect.gen(function*() {
      const listen = unix()
      const code = `require("net").createServer().listen(${
        JSON.stringify(listen.path)
      }, () => process.kill(process.pid, "SIGKILL"))`
      yield* Effect.async<void>((resume) => {
        spawn(process.execPath, ["-e", code]).on("exit", () => resume(Effect.void))
      })
      assert.isTrue(lstatSync(listen.path).isSocket())
      assert.strictEqual((yield* Effect.flip(AdminClient.request(listen, "GET", "/v1/status")))._tag, "NotRunning")
      yield* AdminServer.make({ listen, routes })
      assert.deepStrictEqual(yield* AdminClient.request(listen, "GET", "/v1/status"), { peers: [], sent: 12 })
    }))

  it.scoped("leaves a file alone that is no socket", () =>
    Effect.gen(function*() {
      const listen = unix()
      writeFileSync(listen.path, "mine")
      const error = yield* Effect.flip(AdminServer.make({ listen, routes }))
      assert.strictEqual(error.reason, "Other")
      assert.include(error.message, "is in the way of the admin socket and is no socket")
      assert.isTrue(existsSync(listen.path))
    }))

  it.scoped("says that another program has the port", () =>
    Effect.gen(function*() {
      const port = yield* startTcp
      const error = yield* Effect.flip(AdminServer.make({ listen: { ...LOOPBACK, port }, routes }))
      assert.strictEqual(error.reason, "InUse")
      assert.include(error.message, `cannot listen on 127.0.0.1:${port}: another program listens there`)
    }))
})

describe("the end", () => {
  it.effect("removes the socket, cuts connections, and is not running afterwards", () =>
    Effect.gen(function*() {
      const listen = unix()
      const scope = yield* Scope.make()
      const asked = yield* Deferred.make<void>()
      const slow: AdminServer.Routes = {
        "GET /v1/slow": () => Effect.zipRight(Deferred.succeed(asked, undefined), Effect.never)
      }
      yield* Scope.extend(AdminServer.make({ listen, routes: slow }), scope)
      const asking = yield* Effect.fork(Effect.flip(AdminClient.request(listen, "GET", "/v1/slow")))
      yield* Deferred.await(asked)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* asking)._tag, "Refused")
      assert.isFalse(existsSync(listen.path))
      const error = yield* Effect.flip(
        AdminClient.request(listen, "GET", "/v1/slow", undefined, { configFile: "office.yaml" })
      )
      assert.strictEqual(error._tag, "NotRunning")
      assert.strictEqual(
        error.message,
        `sallyport is not running (nothing answers on ${listen.path}); start it with: sallyport run --config office.yaml`
      )
    }))

  it.scoped("tells a program that is no sallyport from one", () =>
    Effect.gen(function*() {
      const other = yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createServer>>((resume) => {
          const server = createServer((_, response) => response.writeHead(502).end("<html>"))
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const silent = yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createTcpServer>>((resume) => {
          const server = createTcpServer((socket) => socket.destroy())
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      for (const server of [other, silent]) {
        const address = server.address()
        assert(typeof address === "object" && address !== null)
        const error = yield* Effect.flip(AdminClient.request({ ...LOOPBACK, port: address.port }, "GET", "/v1/status"))
        assert(error._tag === "Refused")
        assert.strictEqual(error.code, "bad_answer")
      }
    }))
})
