import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import * as Listeners from "../../src/actors/mux/Listeners.ts"
import {
  CONFIGURED,
  eachKey,
  type Kind,
  listOf,
  LocalListener,
  summaryOf
} from "../../src/protocol/flow/LocalListener.ts"
import { Client } from "../../src/services/config/ConfigSchema.ts"
import * as Reload from "../../src/services/config/Reload.ts"
import { Places } from "../../src/transport/flow/Places.ts"
import * as Socks5Client from "../../src/transport/flow/Socks5Client.ts"
import { HANG_MS } from "../support/Hang.ts"

const dir = mkdtempSync(join(tmpdir(), "listeners-"))
afterAll(() => rmSync(dir, { recursive: true }))

const free = { host: "127.0.0.1", port: 0 }
const protocol = "tcp" as const
const settings = { socks5: free, forwards: [{ listen: free, protocol, resource: "Intranet", port: 80 }] }
const KINDS: Readonly<Record<Kind, true>> = { Socks5: true, Forward: true, InProcess: true }

const started = (wanted: ReadonlyArray<LocalListener>) =>
  Effect.gen(function*() {
    const asked: Array<string> = []
    const listeners = yield* Listeners.make(wanted, {
      places: new Places({ flows: 100 }),
      onForeign: () => {},
      onRequest: ({ host, port, refuse }) => {
        asked.push(`${host}:${port}`)
        refuse({ code: "denied", reason: "" })
      }
    })
    return { asked, listeners }
  })

/** Connects like a program for this kind of listener. Resolves when the listener has answered. */
const useOf = (kind: string, address: string): Promise<unknown> => {
  const at = address.startsWith("/")
    ? { path: address }
    : { host: "127.0.0.1", port: Number(address.split(":").at(-1)) }
  if (kind !== "Forward") {
    return Socks5Client.open({ listener: at, host: "intranet", port: 80, deadlineMs: HANG_MS }).catch(() => null)
  }
  return new Promise((resolve) => void net.connect(at).on("error", () => {}).once("close", resolve).resume())
}

describe("local listeners", () => {
  it("are listed with their names and keys", () => {
    const listed = listOf({ ...settings, forwards: [...settings.forwards, ...settings.forwards] }, "/run/flows.sock")
    assert.deepStrictEqual(listed.map(({ _tag, key, name }) => [_tag, name, key]), [
      ["Socks5", "socks5", "socks5"],
      ["Forward", "forward1", "forwards[0].listen"],
      ["Forward", "forward2", "forwards[1].listen"],
      ["InProcess", null, null]
    ])
    assert.deepStrictEqual(summaryOf(listed), { socks5: true, forwards: 2 })
    assert.deepStrictEqual(summaryOf([]), { socks5: false, forwards: 0 })
    assert.deepStrictEqual(listOf(null, null), [])
    for (const one of listed) assert.deepStrictEqual(Schema.decodeUnknownSync(LocalListener)(one), one)
  })

  it("have a configuration key that changes at once", () => {
    for (const { key } of CONFIGURED) {
      assert.property(Client.fields, key)
      assert.strictEqual(eachKey("live")[key], "live")
      assert.include(Reload.keysOf("client").map(([name, when]) => `${name} ${when}`), `${key} live`)
    }
  })

  it.scoped("of every kind open and pass on requests", () =>
    Effect.gen(function*() {
      const wanted = listOf(settings, join(dir, "every.sock"))
      assert.sameMembers(wanted.map(({ _tag }) => _tag), Object.keys(KINDS), "this test asks for each kind")
      const { asked, listeners } = yield* started(wanted)
      const open = listeners.list()
      assert.deepStrictEqual(open.map(({ name }) => name), wanted.map(({ name }) => name))
      for (const [index, { address }] of open.entries()) {
        yield* Effect.promise(() => useOf(wanted[index]!._tag, address))
      }
      assert.deepStrictEqual(asked, wanted.map(() => "intranet:80"))
    }))

  it.scoped("keep their address when only the target changes", () =>
    Effect.gen(function*() {
      const path = join(dir, "forward.sock")
      const to = (resource: string): ReadonlyArray<LocalListener> => [
        ...listOf({ ...settings, forwards: [] }, join(dir, "kept.sock")),
        { _tag: "Forward", name: "forward1", key: null, at: { path }, protocol, resource, port: 80 }
      ]
      const { asked, listeners } = yield* started(to("intranet"))
      const before = listeners.list()
      yield* listeners.set(to("wiki"))
      assert.deepStrictEqual(listeners.list(), before)
      yield* Effect.promise(() => useOf("Forward", path))
      assert.deepStrictEqual(asked, ["wiki:80"])
      yield* listeners.set(to("wiki").filter(({ _tag }) => _tag !== "Forward"))
      assert.deepStrictEqual(listeners.list(), before.filter(({ name }) => name !== "forward1"))
      yield* Effect.promise(() => useOf("Forward", path))
      assert.deepStrictEqual(asked, ["wiki:80"])
    }))

  it.scoped("change all together or not at all", () =>
    Effect.gen(function*() {
      const taken = net.createServer()
      yield* Effect.promise(() => new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve)))
      yield* Effect.addFinalizer(() => Effect.sync(() => taken.close()))
      const at = { host: "127.0.0.1", port: (taken.address() as net.AddressInfo).port }
      const { listeners } = yield* started(listOf({ socks5: free, forwards: [] }, null))
      const before = listeners.list()
      const next = listOf(
        { socks5: null, forwards: [...settings.forwards, { listen: at, protocol, resource: "wiki", port: 443 }] },
        null
      )
      const { message } = yield* Effect.flip(listeners.set(next))
      assert.match(message, new RegExp(`^the forward to wiki:443 cannot listen on 127.0.0.1:${at.port}: another`))
      assert.deepStrictEqual(listeners.list(), before)
    }))
})
