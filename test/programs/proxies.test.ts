/** Nodes that reach their relay through the proxies of Debian, and one whose network has a sign-in page. */
import { generateKeyPairSync } from "node:crypto"
import { chmodSync, writeFileSync } from "node:fs"
import net from "node:net"
import { join } from "node:path"
import tls from "node:tls"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import * as CertificateWriter from "../../src/services/identity/CertificateWriter.ts"
import { freePort } from "../support/Ports.ts"
import { have, Program, resource, sallyport, serve, type Served, until, World } from "./support/Programs.ts"

const HANG_MS = 120_000
const PASSWORD = "s3cret.word" // tinyproxy takes letters, digits, ".", "-" and "_"

const listens = (port: number, program: Program) =>
  until(`something listens at ${port}`, () =>
    new Promise<true | null>((resolve, reject) => {
      if (!program.running) reject(new Error(program.lines.join("\n")))
      const socket = net.connect(port, "127.0.0.1", () => {
        socket.destroy()
        resolve(true)
      }).on("error", () => resolve(null))
    }), HANG_MS)

describe("a node behind a proxy", () => {
  let world: World
  let server: Served
  const proxies: Array<Program> = []

  beforeAll(async () => {
    server = await serve((socket) => void socket.end("hello"))
    world = await World.start({ resources: [resource("echo", server.port)], relayOnly: true })
    chmodSync(world.dir, 0o755) // danted reads its file as nobody
  })
  afterEach(({ task }) => {
    if (task.result?.state !== "fail") return
    world.tell()
    for (const { lines } of proxies) process.stderr.write(`--- a proxy\n${lines.join("\n")}\n`)
  })
  afterAll(async () => {
    await world?.stop()
    await Promise.all(proxies.map((proxy) => proxy.stop()))
    server?.close()
  })

  const proxy = async (name: string, args: ReadonlyArray<string>, port: number) => {
    const program = new Program(name, args, { env: { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` } })
    proxies.push(program)
    await listens(port, program)
    return program
  }

  /** Writes the file of a client of its own. */
  const configure = async (name: string, changes: object) => {
    const file = join(world.dir, `${name}.yaml`)
    const token = (await world.token("client", name)).trim()
    writeFileSync(file, JSON.stringify({ role: "client", name, stateDir: `state/${name}`, token, ...changes }))
    return file
  }

  it.runIf(have({ program: "tinyproxy", apt: "tinyproxy" }))(
    "crosses tinyproxy with a login, and reports its 407",
    async () => {
      const port = await freePort()
      const file = join(world.dir, "tinyproxy.conf")
      writeFileSync(
        file,
        `Port ${port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nLogLevel Connect\nBasicAuth bob ${PASSWORD}\n`
      )
      const tinyproxy = await proxy("tinyproxy", ["-d", "-c", file], port)
      const wrong = await configure("wrong", { proxy: `http://bob:${PASSWORD.slice(1)}@127.0.0.1:${port}` })
      const refused = await sallyport(["run", "--config", wrong, "--log-format", "json"], { timeoutMs: HANG_MS })
      assert.strictEqual(refused.code, 1)
      assert.match(refused.err, /did not accept the user and password in its URL \(40[17]\)/)
      assert.notInclude(refused.err, PASSWORD.slice(1))

      const encoded = PASSWORD.replace(".", "%2E")
      const right = await configure("bob", { proxy: `http://bob:${encoded}@127.0.0.1:${port}` })
      const node = world.launch("bob", right)
      await node.ready()
      const status = String((await sallyport(["status", "--json", "--config", right])).out)
      assert.strictEqual(
        (JSON.parse(status) as { signaling: { proxy: string } }).signaling.proxy,
        `http://127.0.0.1:${port} (proxy in the configuration)`
      )
      assert.isTrue(tinyproxy.lines.some((line) => line.includes(`CONNECT 127.0.0.1:${world.ports.https}`)))
      assert.notInclude(node.lines.join("\n") + status, encoded)
      assert.notInclude(node.lines.join("\n") + status, PASSWORD)
    }
  )

  it.runIf(have({ program: "danted", apt: "dante-server" }))("crosses dante by SOCKS 5", async () => {
    const port = await freePort()
    const file = join(world.dir, "danted.conf")
    writeFileSync(
      file,
      [
        "logoutput: stderr",
        `internal: 127.0.0.1 port = ${port}`,
        "external: 127.0.0.1",
        "clientmethod: none",
        "socksmethod: none",
        "user.privileged: root",
        "user.unprivileged: nobody",
        "client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }",
        "socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 log: connect }"
      ].join("\n")
    )
    const danted = await proxy("danted", ["-f", file], port)
    await world.launch("carol", await configure("carol", { proxy: `socks5h://127.0.0.1:${port}` })).ready()
    await until("dante says so", () => danted.lines.some((line) => line.includes("tcp/connect")) || null, HANG_MS)
  })

  it("does not connect directly if the environment's proxy is unusable", async () => {
    // The loopback interface is never reached by the environment's proxies, so a relay of another name is enrolled at.
    world.configure("relay", { advertise: { host: "relay.invalid" } })
    const file = await configure("dave", {})
    world.configure("relay", {})
    const env = { ALL_PROXY: `socks4://u:${PASSWORD}@127.0.0.1:1`, HTTPS_PROXY: "", https_proxy: "", no_proxy: "" }
    const { code, err } = await sallyport(["run", "--config", file, "--log-format", "json"], {
      env,
      timeoutMs: HANG_MS
    })
    assert.strictEqual(code, 1)
    assert.match(err, /the URL in ALL_PROXY has the scheme socks4:\/\//)
    assert.notInclude(err, PASSWORD)
  })

  it("waits for a sign-in page to end, token unused", async () => {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
    const { privateKey: signer } = generateKeyPairSync("ed25519")
    const now = Date.now()
    const { pem } = await CertificateWriter.write({
      signer,
      publicKey,
      serial: new Uint8Array(16).fill(1),
      issuer: "Hotel CA",
      subject: "wifi.hotel.example",
      notBefore: new Date(now - 1e8),
      notAfter: new Date(now + 1e8),
      serverFor: "wifi.hotel.example"
    })
    const key = privateKey.export({ format: "pem", type: "pkcs8" })
    const portal = tls.createServer(
      { cert: pem, key },
      (socket) => socket.on("error", () => {}).end("HTTP/1.1 302 Found\r\n\r\n")
    )
    let isSignedIn = false
    const front = await serve((socket) => {
      if (!isSignedIn) return void portal.emit("connection", socket)
      const relay = net.connect(world.ports.https, "127.0.0.1").on("error", () => socket.destroy())
      socket.on("close", () => relay.destroy()).pipe(relay).on("close", () => socket.destroy()).pipe(socket)
    })
    try {
      world.configure("relay", { advertise: { host: "127.0.0.1", https: front.port } })
      const file = await configure("erin", {})
      world.configure("relay", {})
      const node = world.launch("erin", file)
      await until(
        "it says so",
        () => node.lines.some((line) => /token is not spent.*Hotel CA.*sign in/.test(line)) || null,
        HANG_MS
      )
      assert.isTrue(node.running, node.lines.join("\n"))
      isSignedIn = true
      await node.ready()
    } finally {
      front.close()
    }
  })
})
