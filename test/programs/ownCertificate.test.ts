/** A relay that gets a certificate of its operator's own, from an authority that only the operator knows. */
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { certify } from "./support/Chromium.ts"
import {
  PROGRAM,
  Program,
  resource,
  type Role,
  sallyport,
  serve,
  type Served,
  until,
  World
} from "./support/Programs.ts"

const HANG_MS = 120_000

describe("a relay with a certificate of its operator's own", () => {
  let world: World
  let server: Served
  let tls: { readonly cert: string; readonly key: string }
  let ca: string

  beforeAll(async () => {
    server = await serve((socket) => void socket.end("hello"))
    world = await World.start({
      resources: [resource("echo", server.port)],
      access: [{ clients: ["*"], resources: ["*"] }],
      http3: true,
      node: { path: "relay" }
    })
    const made = await certify(world.dir, "company")
    tls = made.files
    ca = made.authority
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    await world?.stop()
    server?.close()
  })

  const flows = () => world.flows("echo", server.port)
  const signaling = async (role: Role) => {
    const { signaling } = await world.status(role) as unknown as {
      readonly signaling: { readonly state: string; readonly carrier: string | null; readonly reason: string | null }
    }
    return signaling
  }
  const isUp = (role: Role) =>
    until(`${role} is signed in`, async () => (await signaling(role)).state === "up" || null, HANG_MS)
  const restart = async (role: Role) => {
    await world.program(role).stop()
    await world.run(role)
  }

  it("keeps the nodes that pinned its key, by each carrier", async () => {
    assert.isTrue(await flows())
    world.configure("relay", { tls })
    await restart("relay")
    for (const role of ["connector", "client"] as const) await isUp(role)
    await until("a flow", async () => (await flows()) || null, HANG_MS)
    for (const carrier of ["webtransport", "websocket"] as const) {
      world.configure("client", { carrier })
      await restart("client")
      assert.include((await signaling("client")).carrier, carrier)
      assert.isTrue(await flows())
    }
  })

  it("lets nodes that trust its authority by ca enrol", async () => {
    const start = async (name: string, more: object) => {
      const file = join(world.dir, `${name}.yaml`)
      const token = (await world.token("client", name)).trim()
      writeFileSync(file, JSON.stringify({ role: "client", name, stateDir: `state/${name}`, token, ...more }))
      return world.launch(name, file)
    }
    const stranger = await start("stranger", {})
    await until(
      "it says why it waits",
      () => stranger.lines.find((line) => line.includes("is not trusted") && line.includes("the key ca")) ?? null,
      HANG_MS
    )
    await stranger.stop()
    for (const carrier of ["websocket", "webtransport"]) {
      const node = await start(`of-${carrier}`, { ca, carrier })
      await node.ready()
      await node.stop()
    }
  })

  it("names a file of authorities that is not there", async () => {
    const file = join(world.dir, "lost.yaml")
    writeFileSync(file, JSON.stringify({ role: "client", name: "lost", stateDir: "state/lost", ca: "none.pem" }))
    const { code, err } = await sallyport(["run", "--config", file])
    assert.strictEqual(code, 2)
    assert.match(err, /lost\.yaml:1:\d+ ca: cannot read .*none\.pem \(ENOENT\)/)
  })

  it("is not taken for another relay with the same certificate", async () => {
    await world.program("relay").stop()
    const { https, udp } = world.ports
    const file = join(world.dir, "other.yaml")
    const listen = { https: `127.0.0.1:${https}`, udp: `127.0.0.1:${udp}` }
    const config = {
      role: "relay",
      name: "other",
      stateDir: "state/other",
      listen,
      advertise: { host: "127.0.0.1" },
      tls
    }
    writeFileSync(file, JSON.stringify(config))
    const other = new Program(PROGRAM, ["run", "--config", file, "--log-format", "json", "--new-identity"])
    try {
      await other.ready()
      const refused = async () => (await signaling("client")).reason === "tls_intercepted" || null
      await until("the client refuses it", refused, HANG_MS)
      assert.isFalse(await flows())
    } finally {
      await other.stop()
      rmSync(file)
    }
    await world.run("relay")
    await isUp("client")
  })
})
