import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { type Decision, direct, type PathSample, RELAY, viaRelay, WEBRTC } from "../../src/protocol/path/PathRef.ts"
import { Entry, Recorder } from "../../src/services/telemetry/Recorder.ts"

const address = (host: string) => direct({ host, port: 4242 })
const sample = (path: PathSample["path"]): PathSample => ({ path, state: "proved", rttMs: 12, loss: 0, costMs: 14 })
const decision = (atMs: number, chosen: PathSample["path"], ...more: ReadonlyArray<PathSample["path"]>): Decision => ({
  atMs,
  chosen,
  paths: [RELAY, chosen, ...more].map(sample),
  reason: "direct_proved",
  moved: true
})
const state = (at: number, message: string | null = null) =>
  ({ at, kind: "actor", name: "streamMux", state: "restarting", incarnation: 1, message }) as const

describe("the flight recorder", () => {
  it("tells one address from another and never what it is", () => {
    const recorder = new Recorder()
    recorder.onDecision({
      session: "s",
      peer: "office",
      decision: decision(1, address("192.0.2.7"), address("2001:db8::7"))
    })
    recorder.onDecision({ session: "s", peer: "office", decision: decision(2, address("192.0.2.7")) })
    recorder.onDecision({ session: "s", peer: "office", decision: decision(3, address("192.0.2.8")) })
    const paths = recorder.entries().map((entry) => (entry._tag === "Path" ? entry.path : ""))
    assert.strictEqual(paths[0], paths[1])
    assert.notStrictEqual(paths[1], paths[2])
    assert.match(paths[0] ?? "", /^direct4-[0-9a-f]{4}$/)
    const text = JSON.stringify(recorder.entries())
    for (const secret of ["192.0.2", "2001:db8", "4242"]) assert.notInclude(text, secret)
    assert.isTrue(Schema.is(Schema.Array(Entry))(JSON.parse(text)))
  })

  it("tells a WebRTC connection from a relay", () => {
    const recorder = new Recorder()
    recorder.onDecision({ session: "s", peer: "p", decision: decision(1, WEBRTC, viaRelay("second")) })
    const [entry] = recorder.entries()
    assert(entry?._tag === "Path")
    assert.deepStrictEqual([entry.path, ...entry.tried.map(({ path }) => path)], ["webrtc", "relay", "webrtc", "relay"])
  })

  it("says other words for the same address in another process", () => {
    const words = [new Recorder(), new Recorder()].map((recorder) => {
      for (let n = 0; n < 8; n++) {
        recorder.onDecision({ session: "s", peer: "p", decision: decision(n, address(`192.0.2.${n}`)) })
      }
      return recorder.entries().map((entry) => (entry._tag === "Path" ? entry.path : ""))
    })
    assert.notDeepEqual(words[0], words[1])
  })

  it("is in order, and keeps the last 512 entries", () => {
    const recorder = new Recorder()
    recorder.onState(state(5, `${"x".repeat(300)}\n    at somewhere (/home/secret/file.ts:1)`))
    for (let at = 10; at < 10 + 600; at++) {
      recorder.onDecision({ session: "s", peer: "p", decision: decision(at, RELAY) })
    }
    recorder.onDecision({ session: "s", peer: "p", decision: decision(1, RELAY) })
    const entries = recorder.entries()
    assert.strictEqual(entries.length, 513)
    assert.deepStrictEqual(entries.map(({ at }) => at), entries.map(({ at }) => at).toSorted((a, b) => a - b))
    const found = entries.find((entry) => entry._tag === "State")
    assert.strictEqual(found?.message, "x".repeat(200))
  })
})
