/**
 * README's three machines, as a stranger sets them up: its commands are taken from its text and run in their order, and what it
 * says of each must come. The machines share one network namespace, so that its ports are free; the resource has one of its own.
 */
import { assert, describe, it } from "@effect/vitest"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { ENV, isPossible, LAB_DIR } from "./Lab.ts"

const ROOT = fileURLToPath(new URL("../../", import.meta.url))
const README = readFileSync(join(ROOT, "README.md"), "utf8")
const TEST_MS = 600_000 // for hangs only
const LABEL = `rd${process.pid.toString(36)}`
const [HOST, FAR] = [`${LABEL}-a`, `${LABEL}-b`]
const RELAY = "10.99.0.1"
const RESOURCE = "10.99.0.10"

/** The lines of README's shell blocks, block by block, each with what its comment says. */
const blocks = [...README.matchAll(/^```sh\n(.*?)^```/gms)].map(([, text = ""]) =>
  text.split("\n").filter((line) => line !== "").map((line) => {
    const [, command = "", comment = ""] = /^(.*?)(?:\s+# (.*))?$/.exec(line) ?? []
    return { command, comment }
  })
)

const found = (what: RegExp): ReadonlyArray<string> => {
  const match = what.exec(README.replaceAll("\n", " "))
  assert.isNotNull(match, `README no longer says ${what.source}`)
  return match.slice(1)
}

/** What must come of a command, by its beginning. */
const EXPECTED: ReadonlyArray<readonly [RegExp, RegExp]> = [
  [/^bin\/sallyport relay init /, /relay\.yaml/],
  [/^bin\/sallyport token create /, /^$/],
  [/^curl /, /hello from the resource/],
  [/^bin\/sallyport status /, /office.*(direct|relay)/s],
  [/^bin\/sallyport path office /, /(direct|relay)/],
  [/^bin\/sallyport ping office /, /direct/],
  [/^bin\/sallyport trace /, / UTC /],
  [/^bin\/sallyport doctor --config relay/, /./],
  [/^bin\/sallyport doctor --config client/, /./],
  [/^bin\/sallyport netcheck /, /UDP|mapping/i],
  [/^bin\/sallyport bugreport /, /./],
  [/^bin\/sallyport network /, /laptop/]
]

interface Ran {
  readonly code: number | null
  readonly out: string
}

describe.skipIf(!isPossible)("README", () => {
  it("sets up three machines that work", async () => {
    const dir = mkdtempSync(join(tmpdir(), "readme-"))
    const etc = join(dir, "etc-sallyport")
    const running = new Map<string, ChildProcess>()
    const machines = { relay: join(dir, "relay"), connector: join(dir, "connector"), client: join(dir, "client") }
    const env = { ...ENV, EDITOR: join(dir, "editor") }
    const inside = (namespace: string, cwd: string, command: string) =>
      spawn("ip", ["netns", "exec", namespace, "sh", "-c", `exec 2>&1; ${command}`], {
        cwd,
        env,
        stdio: ["ignore", "pipe", "inherit"]
      })
    const run = async (cwd: string, command: string): Promise<Ran> => {
      const child = inside(HOST, cwd, command)
      let out = ""
      child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()))
      const [code] = await once(child, "close") as [number | null]
      return { code, out }
    }
    const start = async (name: string, namespace: string, cwd: string, command: string) => {
      const child = inside(namespace, cwd, `exec ${command}`)
      running.set(name, child)
      let out = ""
      await new Promise<void>((resolve, reject) => {
        child.stdout.on("data", (chunk: Buffer) => {
          out += chunk.toString()
          if (/\bready\b/.test(out)) resolve()
        })
        child.once("exit", (code) => reject(new Error(`${command} ended with ${code}: ${out}`)))
      })
    }
    try {
      network()
      for (const machine of Object.values(machines)) {
        mkdirSync(machine)
        symlinkSync(join(ROOT, "bin"), join(machine, "bin"))
      }
      writeFileSync(join(dir, "file"), "")
      await start(
        "resource",
        FAR,
        dir,
        `${process.execPath} ${join(LAB_DIR, "resource.mjs")} ${RESOURCE} 80 ${dir}/file`
      )
      // The operator takes the comment signs from the template's examples.
      const uncomment =
        "s/^resources: \\[\\]$/resources:/; s/^access: \\[\\]$/access:/; s/^#   - name: intranet/  - name: intranet/; " +
        "s/^#     \\(network: default\\|address: intranet.local\\|tcp: .*\\)$/    \\1/; " +
        "s/^#   - clients: /  - clients: /; s/^#     resources: \\[intranet\\]/    resources: [intranet]/"
      writeFileSync(env.EDITOR, `#!/bin/sh\nexec sed -i '${uncomment}' "$1"\n`, { mode: 0o755 })

      const [tryIt, relaySide, nodeSide, reports] = blocks
      const scripts = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")).scripts as Record<string, string>
      for (const { command } of tryIt ?? []) {
        assert.property(scripts, /^npm ci && npm (\w+)$/.exec(command)?.[1] ?? command)
      }

      const [report = ""] = found(/With `(telemetry: \{report: true\})` in a node's file/)
      const [admin = "", page = ""] = found(/With `(admin: "[^"]+")` in a configuration, (\S+) shows/)
      const moveIn = (role: "connector" | "client") => {
        const file = join(machines[role], `${role}.yaml`)
        copyFileSync(join(ROOT, "config", `${role}.yaml`), file)
        renameSync(join(machines.relay, `${role}.token`), join(machines[role], `${role}.token`))
        if (role === "client") appendFileSync(file, `\n${report}\n${admin}\n`)
        return readFileSync(file, "utf8")
      }
      for (const { command, comment } of [...relaySide ?? [], ...nodeSide ?? [], ...reports ?? []]) {
        const role = command.includes("connector.yaml")
          ? "connector"
          : /client\.yaml|^curl/.test(command)
          ? "client"
          : "relay"
        const text = command.replaceAll("/etc/sallyport", etc)
        const cwd = /--config relay\.yaml/.test(command) ? etc : machines[role]
        if (cwd === etc && !existsSync(join(etc, "bin"))) symlinkSync(join(ROOT, "bin"), join(etc, "bin"))
        const [, config] = /^bin\/sallyport run --config (\S+)$/.exec(command) ?? []
        if (config !== undefined) {
          // The comment shows what the file holds; the template that README names must hold it.
          const file = role === "relay" ? "" : moveIn(role)
          if (comment !== "") { for (const key of comment.split(", ")) assert.include(file, `\n${key}\n`) }
          await start(role, HOST, cwd, text)
          continue
        }
        if (command.startsWith("$EDITOR ")) {
          assert.strictEqual((await run(cwd, text)).code, 0, command)
          continue
        }
        const [, expected] = EXPECTED.find(([beginning]) => beginning.test(command)) ?? []
        assert.isDefined(expected, `this test does not know README's command: ${command}`)
        let ran = await run(cwd, text)
        // A report comes some time after its node.
        for (let tries = 0; tries < 60 && ran.code === 0 && !expected.test(ran.out); tries++) {
          await sleep(500)
          ran = await run(cwd, text)
        }
        assert.match(ran.out, expected, command)
        assert.strictEqual(ran.code, 0, `${command}\n${ran.out}`)
      }
      const shown = await run(machines.client, `curl -s ${page}`)
      assert.match(shown.out, /<!doctype html>/i, page)
      const sent = readdirSync(machines.client).filter((name) => name.includes("bugreport"))
      assert.strictEqual(sent.length, 1, "one file to send")
      const told = gunzipSync(readFileSync(join(machines.client, sent[0]!))).toString()
      assert.include(told, "laptop")
      assert.notInclude(told, RELAY)
      for (const role of ["client", "connector", "relay"]) {
        const child = running.get(role)!
        const ended = once(child, "exit")
        child.kill("SIGTERM") // `exec` made it the program itself
        await ended
      }
    } finally {
      for (const child of running.values()) if (child.exitCode === null) child.kill("SIGKILL")
      unplug()
      rmSync(dir, { recursive: true, force: true })
    }
  }, TEST_MS)
})

const ip = (...args: ReadonlyArray<string>) => execFileSync("ip", args, { env: ENV })

const network = () => {
  for (const namespace of [HOST, FAR]) {
    ip("netns", "add", namespace)
    ip("-n", namespace, "link", "set", "lo", "up")
  }
  ip("link", "add", "eth0", "netns", HOST, "type", "veth", "peer", "name", "eth0", "netns", FAR)
  for (const [namespace, address] of [[HOST, RELAY], [FAR, RESOURCE]] as const) {
    ip("-n", namespace, "addr", "add", `${address}/24`, "dev", "eth0")
    ip("-n", namespace, "link", "set", "eth0", "up")
  }
  mkdirSync(`/etc/netns/${HOST}`, { recursive: true })
  const hosts = ["127.0.0.1 localhost", `${RELAY} relay.example.com`, `${RESOURCE} intranet.local`]
  writeFileSync(`/etc/netns/${HOST}/hosts`, `${hosts.join("\n")}\n`)
}

const unplug = () => {
  for (const namespace of [HOST, FAR]) if (existsSync(`/run/netns/${namespace}`)) ip("netns", "del", namespace)
  rmSync(`/etc/netns/${HOST}`, { recursive: true, force: true })
}
