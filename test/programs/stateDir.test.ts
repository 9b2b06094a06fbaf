/** State directories on disks that are full or read-only, and a relay that has lost its state. */
import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
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
const EXIT_USAGE = 2
const ROLES: ReadonlyArray<Role> = ["relay", "connector", "client"]

const mount = (...args: ReadonlyArray<string>): void => {
  const { status, stderr } = spawnSync("mount", args)
  if (status !== 0) throw new Error(String(stderr))
}
const unmount = (path: string) => spawnSync("umount", ["--lazy", path])
const tmpfs = (path: string) => {
  mkdirSync(path, { recursive: true })
  mount("-t", "tmpfs", "-o", "size=2m,mode=700", "sallyport-test", path)
}
const canMount = (() => {
  const path = mkdtempSync(join(tmpdir(), "sallyport-mount-"))
  try {
    tmpfs(path)
    unmount(path)
    return true
  } catch {
    process.stderr.write("TESTS NOT RUN, nothing is proved: this user may not mount a tmpfs; run as root\n")
    return false
  } finally {
    rmSync(path, { recursive: true })
  }
})()

const FILLER = "filler"
const fill = (path: string) => spawnSync("dd", ["if=/dev/zero", `of=${join(path, FILLER)}`, "bs=4k"])
const free = (path: string) => rmSync(join(path, FILLER))

describe.skipIf(!canMount)("a state directory in trouble", () => {
  let world: World
  let server: Served
  const state = (name: string) => join(world.dir, "state", name)
  const mounted: Array<string> = []

  beforeAll(async () => {
    server = await serve((socket) => void socket.end("hello"))
    world = await World.start({ resources: [resource("echo", server.port)], node: { path: "relay" } })
    for (const role of ROLES) {
      await world.program(role).stop()
      cpSync(state(role), `${state(role)}.bak`, { recursive: true })
      tmpfs(state(role))
      mounted.push(state(role))
      cpSync(`${state(role)}.bak`, state(role), { recursive: true })
    }
    for (const role of ROLES) await world.run(role)
  })
  afterEach(({ task }) => {
    if (task.result?.state === "fail") world.tell()
  })
  afterAll(async () => {
    for (const [, program] of world?.all ?? []) await program.stop()
    for (const path of mounted) unmount(path)
    await world?.stop()
    server?.close()
  })

  const flows = () => world.flows("echo", server.port)
  const doctor = async (role: Role) => String((await sallyport(["doctor", "--config", world.file(role)])).out)
  const said = (program: Program, text: string) =>
    until(text, () => program.lines.find((line) => line.includes(text)) ?? null, HANG_MS)

  it("is reported while the disk is full, and rules wait", async () => {
    const relay = world.program("relay")
    for (const role of ROLES) fill(state(role))
    assert.match(await doctor("relay"), /BROKEN  the state directory cannot be written: its disk is full; no node,/)
    assert.match(
      await doctor("client"),
      /POOR  the state directory cannot be written: its disk is full; nothing is saved/
    )
    await said(relay, "the state directory cannot be written: its disk is full")
    world.configure("relay", { access: [] })
    relay.kill("SIGHUP")
    await said(relay, "the configuration was not reloaded")
    assert.match(await doctor("relay"), /BROKEN  the configuration file could not be reloaded.*the disk is full/)
    assert.isTrue(await flows(), "what was permitted goes on")

    for (const role of ROLES) free(state(role))
    await said(relay, "the configuration was reloaded: access")
    await said(relay, "the state directory can be written again")
    // The directory is written again within seconds, and only then known to be well.
    await until("the relay is well", async () => !(await doctor("relay")).includes("BROKEN") || null, HANG_MS)
    assert.isFalse(await flows(), "the rule is gone")
    world.configure("relay", {})
    relay.kill("SIGHUP")
    await until("the rule is back", async () => (await flows()) || null, HANG_MS)
  })

  it("lets a new node wait for room, its token unspent", async () => {
    writeFileSync(join(world.dir, "late.token"), await world.token("client", "late"))
    tmpfs(state("late"))
    mounted.push(state("late"))
    fill(state("late"))
    const file = join(world.dir, "late.yaml")
    const config = { role: "client", name: "late", stateDir: "state/late", token: { file: "late.token" } }
    writeFileSync(file, JSON.stringify(config))
    const late = world.launch("late", file)
    await said(late, "waiting for the state directory: its disk is full")
    free(state("late"))
    await late.ready()
    await late.stop()
  })

  it("is waited for while its disk is read-only", async () => {
    for (const role of ROLES) {
      await world.program(role).stop()
      // A relay whose database has its log beside it starts and serves on a read-only disk, too.
      for (const end of ["-wal", "-shm"]) rmSync(join(state(role), `directory.db${end}`), { force: true })
      mount("-o", "remount,ro", state(role))
    }
    const programs = ROLES.map((role) => world.launch(role, world.file(role)))
    for (const program of programs) await said(program, "the disk is read-only; sallyport tries again by itself")
    await said(world.program("relay"), "waiting for the state directory: its disk is read-only")
    assert.include((await sallyport(["status", "--config", world.file("client")])).err, "runs without its admin socket")
    for (const role of ROLES) mount("-o", "remount,rw", state(role))
    for (const program of programs) {
      await program.ready()
      await said(program, "the admin API is open")
    }
    assert.isTrue(await flows())
  })

  it("stops a relay without state from making new keys", async () => {
    await world.program("relay").stop()
    const start = async (...more: ReadonlyArray<string>) => {
      const relay = new Program(PROGRAM, ["run", "--config", world.file("relay"), ...more], { cwd: world.dir })
      const { code } = await relay.ended
      return { code, said: relay.lines }
    }
    const db = join(state("relay"), "directory.db")
    truncateSync(db, 8192)
    const damaged = await start()
    assert.deepStrictEqual([damaged.code, damaged.said.length], [EXIT_USAGE, 1], damaged.said.join("\n"))
    assert.include(damaged.said[0], "directory.db is damaged")
    for (const file of readdirSync(state("relay"))) rmSync(join(state("relay"), file))
    const lost = await start()
    assert.deepStrictEqual([lost.code, lost.said.length], [EXIT_USAGE, 1], lost.said.join("\n"))
    assert.include(lost.said[0], "holds no relay")
    assert.include(lost.said[0], "--new-identity")
    assert.deepStrictEqual(readdirSync(state("relay")).filter((name) => /\.(?:key|db)$/.test(name)), [])
    cpSync(`${state("relay")}.bak`, state("relay"), { recursive: true })
    await world.run("relay")
    await until("the nodes are back", async () => (await flows()) || null, HANG_MS)
  })
})
