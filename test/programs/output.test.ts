/** What the command line writes arrives whole, whoever reads it and however slowly. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import http from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { assert, describe, it } from "vitest"
import { PROGRAM } from "./support/Programs.ts"

describe("output to a pipe", () => {
  it("is written whole before the program ends", async () => {
    const dir = mkdtempSync(join(tmpdir(), "sallyport-output-"))
    const state = join(dir, "state")
    mkdirSync(state, { mode: 0o700 })
    const file = join(dir, "client.json")
    writeFileSync(file, JSON.stringify({ role: "client", name: "laptop", stateDir: state, token: "unused" }))
    const entry = {
      _tag: "Path",
      at: 0,
      peer: "office",
      session: "0".repeat(32),
      path: "relay",
      reason: "probing",
      moved: false,
      tried: []
    }
    const entries = Array.from({ length: 5_000 }, () => entry) // several times what a pipe holds
    const server = http.createServer((_, response) => {
      response.setHeader("content-type", "application/json")
      response.end(JSON.stringify({ entries }))
    })
    server.listen(join(state, "admin.sock"))
    await once(server, "listening")
    try {
      const child = spawn(PROGRAM, ["path", "office", "--config", file, "--json"], {
        stdio: ["ignore", "pipe", "pipe"]
      })
      let said = ""
      child.stderr.on("data", (bytes: Buffer) => said += String(bytes))
      const exit = once(child, "exit")
      await once(child.stdout, "readable")
      await sleep(300) // the reader is slow: what the pipe does not hold waits in the program
      const chunks: Array<Buffer> = []
      for await (const chunk of child.stdout) chunks.push(chunk as Buffer)
      assert.deepStrictEqual(await exit, [0, null], said)
      const read = JSON.parse(String(Buffer.concat(chunks))) as { readonly entries: ReadonlyArray<unknown> }
      assert.strictEqual(read.entries.length, entries.length)
    } finally {
      server.close()
      rmSync(dir, { recursive: true })
    }
  })
})
