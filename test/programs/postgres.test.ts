/** A database client that knows nothing of us, through a forward. */
import { createHash } from "node:crypto"
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import { freePort } from "../support/Ports.ts"
import { command, have, resource, type Result, World } from "./support/Programs.ts"

/** Debian keeps the server's programs out of the path, by version. */
const BIN = "/usr/lib/postgresql"
const bin = (existsSync(BIN) ? readdirSync(BIN) : [])
  .map((version) => join(BIN, version, "bin"))
  .find((dir) => existsSync(join(dir, "initdb"))) ?? BIN
const PROGRAMS = ["initdb", "pg_ctl", "psql"].map((name) => ({ program: join(bin, name), apt: "postgresql" }))
const USER = "postgres"
const ROWS = 10_000
/** Each row another, and together more than a window. */
const TABLE = `create table item as select n as id, md5(n::text) as name, repeat(md5((n * 7)::text), 40) as body
  from generate_series(1, ${ROWS}) as n`
const COPY = "copy (select * from item order by id) to stdout"

/** The server refuses to run as root. */
const as = (name: string, ...args: ReadonlyArray<string>): Promise<Result> =>
  process.getuid?.() === 0 ? command("runuser", ["-u", USER, "--", name, ...args]) : command(name, args)

describe.skipIf(!have(...PROGRAMS))("PostgreSQL through a forward", () => {
  let dir: string
  let server: number
  let forward: number
  let world: World

  const psql = (port: number, ...args: ReadonlyArray<string>) =>
    command(join(bin, "psql"), [
      "-h",
      "127.0.0.1",
      "-p",
      String(port),
      "-U",
      USER,
      "-v",
      "ON_ERROR_STOP=1",
      ...args,
      USER
    ])
  const ok = async (result: Promise<Result>) => {
    const { code, err, out } = await result
    assert.strictEqual(code, 0, err)
    return out
  }

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "sallyport-pg-"))
    if (process.getuid?.() === 0) {
      const id = String((await command("id", ["-u", USER])).out).trim()
      chownSync(dir, Number(id), Number(String((await command("id", ["-g", USER])).out)))
    }
    const data = join(dir, "data")
    ;[server, forward] = [await freePort(), await freePort()]
    await ok(as(join(bin, "initdb"), "-D", data, "-U", USER, "-A", "trust", "--no-sync"))
    const options = `-p ${server} -c listen_addresses=127.0.0.1 -c unix_socket_directories=${dir} -c fsync=off`
    await ok(as(join(bin, "pg_ctl"), "-D", data, "-o", options, "-w", "-l", join(dir, "log"), "start"))
    await ok(psql(server, "-c", TABLE))
    world = await World.start({
      resources: [resource("db", server)],
      client: { forwards: [{ listen: `127.0.0.1:${forward}`, resource: "db", port: server }] }
    })
  })
  afterAll(async () => {
    await world?.stop()
    await as(join(bin, "pg_ctl"), "-D", join(dir, "data"), "-m", "immediate", "-w", "stop")
    rmSync(dir, { recursive: true, force: true })
  })

  it("reads and writes ten thousand rows without a changed byte", async () => {
    const md5 = (bytes: Buffer) => createHash("md5").update(bytes).digest("hex")
    const direct = await ok(psql(server, "-c", COPY))
    const through = await ok(psql(forward, "-c", COPY))
    assert.strictEqual(through.toString("latin1").split("\n").length - 1, ROWS)
    assert.strictEqual(md5(through), md5(direct))
    await ok(psql(forward, "-c", "create table copied (like item)"))
    const args = ["-h", "127.0.0.1", "-p", String(forward), "-U", USER, "-c", "copy copied from stdin", USER]
    await ok(command(join(bin, "psql"), args, { input: through }))
    const same = await ok(psql(server, "-Atc", "select count(*) from item natural join copied"))
    assert.strictEqual(String(same).trim(), String(ROWS))
  })

  it("keeps a transaction open while the session does other work", async () => {
    const script = "begin; select pg_sleep(1); select count(*) from item; rollback;"
    const answers = await Promise.all(Array.from({ length: 8 }, () => ok(psql(forward, "-Atc", script))))
    for (const answer of answers) assert.include(String(answer), String(ROWS))
  })
})
