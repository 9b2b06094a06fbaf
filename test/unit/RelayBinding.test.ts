import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as RelayBinding from "../../src/protocol/relay/RelayBinding.ts"
import { type Message, PROOF_BYTES, type Refusal } from "../../src/protocol/relay/RelayWire.ts"
import { runs } from "../support/Runs.ts"

const MARK = new Uint8Array(8).fill(0xaa)
const COOKIE = new Uint8Array(20).fill(0xcc)
const TICKET = { payload: new Uint8Array(3), signature: new Uint8Array(64) }
const MAPPED = { host: "192.0.2.1", port: 4000 }
const TAG = 0x112233445566

/** A binding whose nonces count up, driven by hand. */
const make = (carrier: "udp" | "link" = "udp") => {
  let count = 0
  const binding = new RelayBinding.RelayBinding({
    carrier,
    newNonce: () => new Uint8Array(8).fill(++count & 255).fill(count >> 8, 0, 1)
  })
  const log: Array<{ at: number; output: RelayBinding.Output }> = []
  const note = (outputs: ReadonlyArray<RelayBinding.Output>, at: number) => {
    for (const output of outputs) log.push({ at, output })
    return outputs
  }
  /** Wakes it whenever it asks for that, until `end`. */
  const runTo = (end: number) => {
    for (let wakes = 0; binding.wakeAt <= end; wakes++) {
      assert.isBelow(wakes, 10_000, "it never rests")
      const at = binding.wakeAt
      note(binding.onTick(at), at)
    }
  }
  const on = (message: Message, at: number) => note(binding.onMessage(message, at), at)
  const lastAsk = () =>
    log.findLast(({ output }) =>
      output._tag === "SendBind" ||
      (output._tag === "Send" && output.message._tag === "BindRequest" && output.padTo === PROOF_BYTES)
    )!.output
  const nonce = () => {
    const ask = lastAsk()
    return ask._tag === "SendBind"
      ? ask.nonce
      : ask._tag === "Send" && ask.message._tag === "BindRequest"
      ? ask.message.nonce
      : new Uint8Array(8)
  }
  const bind = (at: number, mark = MARK, mapped = MAPPED, lifetimeSeconds = 300) => {
    on({ _tag: "Cookie", nonce: nonce(), cookie: COOKIE }, at)
    return on({ _tag: "Bound", nonce: nonce(), mark, lifetimeSeconds, mapped }, at)
  }
  const start = (at = 0) => {
    note(binding.onCredential(true, at), at)
    return bind(at)
  }
  const all = (tag: Message["_tag"]) =>
    log.filter(({ output }) => output._tag === "Send" && output.message._tag === tag)
  /** Without the small requests beside the padded ones. */
  const sends = (tag: Message["_tag"]) =>
    all(tag).filter(({ output }) => tag !== "BindRequest" || (output._tag === "Send" && output.padTo === PROOF_BYTES))
  const small = () => all("BindRequest").filter((one) => !sends("BindRequest").includes(one))
  const smallNonce = () => {
    const output = small().at(-1)?.output
    return output?._tag === "Send" && output.message._tag === "BindRequest" ? output.message.nonce : new Uint8Array(8)
  }
  const tags = () => log.map(({ output }) => output._tag)
  return { binding, log, note, runTo, on, nonce, bind, start, sends, small, smallNonce, tags }
}

describe("RelayBinding", () => {
  it("asks on a schedule, reports blocked UDP, and probes on", () => {
    const { binding, log, note, runTo, sends } = make()
    note(binding.onCredential(true, 0), 0)
    runTo(100_000)
    assert.deepStrictEqual(sends("BindRequest").map((one) => Math.round(one.at)).slice(0, 4), [0, 100, 300, 700])
    const told = log.filter(({ output }) => output._tag === "UdpBlocked")
    assert.strictEqual(told.length, 1)
    assert.strictEqual(binding.phase, "udp_blocked")
    const probes = sends("BindRequest").slice(4).map((one) => one.at)
    assert.deepStrictEqual(probes.map((at) => Math.round(at / 1000)), [2, 5, 11, 22, 43, 74])
  })

  it("binds by cookie and signature, and refreshes at half life", () => {
    const { bind, binding, log, runTo, start, tags } = make()
    start()
    assert.deepStrictEqual(tags(), ["Send", "SendBind", "Bound"])
    assert.strictEqual(binding.phase, "bound")
    assert.deepStrictEqual(binding.mapped, MAPPED)
    runTo(19_999)
    assert.strictEqual(log.length, 3)
    for (let at = 0; at <= 149_000; at += 1000) binding.onTraffic(at) // no pings
    runTo(150_000)
    assert.include(log.at(-1)!, { at: 150_000 })
    bind(150_010)
    assert.deepStrictEqual(tags().filter((tag) => tag === "Bound" || tag === "Lost"), ["Bound"])
    for (let at = 150_010; at <= 300_000; at += 1000) binding.onTraffic(at)
    runTo(300_009) // past the first lifetime's end
    assert.strictEqual(binding.phase, "bound")
    assert.strictEqual(log.length, 5)
  })

  it("returns to UDP when it is no longer blocked", () => {
    const { bind, binding, note, runTo, tags } = make()
    note(binding.onCredential(true, 0), 0)
    runTo(2100)
    assert.strictEqual(binding.phase, "udp_blocked")
    bind(2110)
    assert.strictEqual(binding.phase, "bound")
    assert.strictEqual(tags().at(-1), "Bound")
  })

  it("pings after 20 s of silence, then binds again", () => {
    const { binding, log, on, runTo, sends, start, tags } = make()
    start()
    runTo(20_000)
    const ping = log.at(-1)!.output
    assert.isTrue(ping._tag === "Send" && ping.message._tag === "Ping")
    if (ping._tag !== "Send" || ping.message._tag !== "Ping") return
    on({ _tag: "Pong", echo: new Uint8Array(8) }, 20_010) // another's
    on({ _tag: "Pong", echo: ping.message.echo }, 20_020)
    runTo(40_000)
    assert.strictEqual(sends("Ping").length, 1)
    runTo(42_100)
    assert.deepStrictEqual(sends("Ping").map((one) => one.at - 40_020).slice(1), [0, 100, 300, 700])
    assert.deepStrictEqual(sends("BindRequest").map((one) => one.at - 41_020).slice(1), [0, 100, 300, 700])
    assert.deepStrictEqual(tags().slice(-2), ["Lost", "UdpBlocked"])
    assert.strictEqual(binding.phase, "udp_blocked")
  })

  it("seeks a lost leg quickly while a session is open", () => {
    const { bind, binding, log, note, runTo, sends, small, start, tags } = make()
    start()
    note(binding.onTicket("s", TAG, TICKET, 0), 0)
    runTo(19_000)
    note(binding.onNetworkChanged(19_000), 19_000)
    runTo(60_000)
    assert.deepStrictEqual(tags().filter((tag) => tag === "Lost" || tag === "UdpBlocked"), ["Lost", "UdpBlocked"])
    const probes = sends("BindRequest").map(({ at }) => at).filter((at) => at >= 20_000)
    const gaps = probes.slice(1).map((at, i) => at - probes[i]!)
    assert.isAtMost(Math.max(...gaps), 1_000)
    assert.isAtLeast(Math.min(...gaps), RelayBinding.HURRY_SEND_GAP_MS)
    assert.isAbove(new Set(gaps).size, 3, "the nodes of a relay are spread")
    assert.isTrue(small().every(({ at }) => at < 20_000))
    let at = 60_000
    while (log.at(-1)!.output._tag !== "Send") runTo(at += 10)
    bind(at)
    const opened = log.at(-1)!.output
    assert.strictEqual(opened._tag === "Send" ? opened.message._tag : null, "Open")
    assert.strictEqual(binding.phase, "bound")
  })

  it("returns to rare probes after a minute", () => {
    const { binding, note, runTo, sends, start } = make()
    start()
    note(binding.onTicket("s", TAG, TICKET, 0), 0)
    note(binding.onNetworkChanged(0), 0)
    runTo(300_000)
    const late = sends("BindRequest").filter(({ at }) => at > 1_000 + RelayBinding.HURRY_MS + 2_000)
    assert.isBelow(late.length, 15)
    const without = make()
    without.start()
    without.note(without.binding.onNetworkChanged(0), 0)
    without.runTo(60_000)
    assert.deepStrictEqual(
      without.sends("BindRequest").map(({ at }) => Math.round(at / 1000)).slice(5),
      [2, 5, 11, 22, 43]
    )
  })

  it("gives UDP up while only small packets are answered", () => {
    const { bind, binding, log, note, on, runTo, sends, small, smallNonce } = make()
    note(binding.onCredential(true, 0), 0)
    runTo(310)
    assert.deepStrictEqual(small().map(({ at }) => at), [300])
    on({ _tag: "Cookie", nonce: smallNonce(), cookie: COOKIE }, 320)
    runTo(1000)
    assert.deepStrictEqual(log.at(-1)!.output, { _tag: "UdpBlocked", reason: "too_small" })
    assert.notInclude(log.map(({ output }) => output._tag), "SendBind", "not bound by small packets")
    assert.strictEqual(binding.phase, "udp_blocked")
    runTo(3000)
    assert.deepStrictEqual(log.at(-1)!.output, { _tag: "StillBlocked", reason: "unanswered" })
    runTo(5500)
    assert.strictEqual(small().at(-1)!.at, sends("BindRequest").at(-1)!.at, "each probe asks both ways")
    bind(5510)
    assert.strictEqual(binding.phase, "bound")
  })

  it("finds a leg too small within a keepalive", () => {
    const { binding, log, note, on, runTo, sends, smallNonce, start } = make()
    start()
    note(binding.onTicket("s", TAG, TICKET, 0), 0)
    const open = sends("Open")[0]!.output
    if (open._tag === "Send" && open.message._tag === "Open") {
      on({ _tag: "Opened", nonce: open.message.nonce, tag: TAG, peerLeg: "relay-udp" }, 0)
    }
    const pingAt = (at: number) => {
      runTo(at)
      const ping = log.at(-1)!.output
      return ping._tag === "Send" && ping.message._tag === "Ping" ? ping : assert.fail(`no ping at ${at}`)
    }
    const first = pingAt(20_000)
    assert.strictEqual(first.padTo, 0, "the handshake has proved the size just before")
    if (first.message._tag === "Ping") on({ _tag: "Pong", echo: first.message.echo }, 20_000)
    assert.strictEqual(pingAt(40_000).padTo, PROOF_BYTES)
    runTo(41_999)
    on({ _tag: "Cookie", nonce: smallNonce(), cookie: COOKIE }, 41_999)
    runTo(42_100)
    assert.deepStrictEqual(log.slice(-2).map(({ output }) => output), [
      { _tag: "Lost", reason: "too_small" },
      { _tag: "UdpBlocked", reason: "too_small" }
    ])
  })

  it("sends no padded keepalive without a session", () => {
    const { log, on, runTo, sends, start } = make()
    start()
    for (const at of [20_000, 40_000, 60_000, 80_000]) {
      runTo(at)
      const ping = log.at(-1)!.output
      if (ping._tag === "Send" && ping.message._tag === "Ping") on({ _tag: "Pong", echo: ping.message.echo }, at)
    }
    assert.deepStrictEqual(sends("Ping").map(({ output }) => output._tag === "Send" && output.padTo), [0, 0, 0, 0])
  })

  it("pings as often as the NATs need", () => {
    const pongs = ({ log, on }: ReturnType<typeof make>, at: number) => {
      const ping = log.at(-1)!.output
      if (ping._tag === "Send" && ping.message._tag === "Ping") on({ _tag: "Pong", echo: ping.message.echo }, at)
    }
    const it = make()
    it.start()
    it.binding.onKeepalive(6_800, 1_000)
    for (const at of [7_800, 14_600, 21_400]) {
      it.runTo(at)
      pongs(it, at)
    }
    assert.deepStrictEqual(it.sends("Ping").map(({ at }) => at), [7_800, 14_600, 21_400])
    it.binding.onKeepalive(46_800, 21_500)
    it.runTo(28_200)
    pongs(it, 28_200)
    it.runTo(75_000)
    assert.deepStrictEqual(it.sends("Ping").map(({ at }) => at).slice(3), [28_200, 75_000])
    const link = make("link")
    link.on({ _tag: "Bound", nonce: new Uint8Array(8), mark: MARK, lifetimeSeconds: 300, mapped: null }, 0)
    link.binding.onKeepalive(6_800, 0)
    link.runTo(RelayBinding.KEEPALIVE_MS)
    assert.deepStrictEqual(link.sends("Ping").map(({ at }) => at), [RelayBinding.KEEPALIVE_MS])
  })

  it("binds again for its own ping or tag only", () => {
    const { bind, binding, note, on, sends, start } = make()
    start()
    note(binding.onTicket("s", TAG, TICKET, 0), 0)
    const echo = Uint8Array.from([0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66])
    on({ _tag: "Rebind", echo: new Uint8Array(8).fill(3) }, 10)
    assert.strictEqual(sends("BindRequest").length, 1)
    on({ _tag: "Rebind", echo }, 10)
    bind(20)
    for (let at = 30; at < 260; at += 10) on({ _tag: "Rebind", echo }, at)
    assert.strictEqual(sends("BindRequest").length, 2)
    on({ _tag: "Rebind", echo }, 260)
    assert.strictEqual(sends("BindRequest").length, 3)
    assert.strictEqual(binding.phase, "bound")
  })

  it("binds again at once when the network changes", () => {
    const { bind, binding, log, note, sends, start, tags } = make()
    start()
    const asked = sends("BindRequest").length
    note(binding.onNetworkChanged(5_000), 5_000)
    assert.strictEqual(binding.phase, "bound", "until the relay says otherwise")
    assert.lengthOf(sends("BindRequest"), asked + 1)
    assert.strictEqual(log.at(-1)!.at, 5_000)
    assert.deepStrictEqual(bind(5_040), [{ _tag: "Bound", mapped: MAPPED }])
    const bounds = tags().filter((tag) => tag === "Bound").length
    note(binding.onTick(binding.wakeAt), binding.wakeAt)
    assert.strictEqual(tags().filter((tag) => tag === "Bound").length, bounds, "a plain refresh says nothing")
  })

  it("opens each session until it is answered", () => {
    const { bind, binding, log, note, on, runTo, sends, start, tags } = make()
    note(binding.onTicket("s", TAG, TICKET, 0), 0)
    assert.strictEqual(log.length, 0)
    start()
    runTo(800)
    assert.deepStrictEqual(sends("Open").map((one) => one.at), [0, 100, 300, 700])
    const open = sends("Open")[0]!.output
    const nonce = open._tag === "Send" && open.message._tag === "Open" ? open.message.nonce : new Uint8Array(8)
    on({ _tag: "Opened", nonce, tag: TAG, peerLeg: "relay-udp" }, 810)
    on({ _tag: "Opened", nonce, tag: TAG, peerLeg: "relay-udp" }, 811)
    assert.strictEqual(tags().filter((tag) => tag === "Opened").length, 1)
    note(binding.onNetworkChanged(1000), 1000)
    bind(1010, MARK, { host: "192.0.2.9", port: 1 })
    assert.strictEqual(sends("Open").length, 4)
    assert.strictEqual(tags().filter((tag) => tag === "Bound").length, 2)
    note(binding.onNetworkChanged(3000), 3000)
    bind(3010, new Uint8Array(8).fill(1)) // a relay that was restarted
    assert.strictEqual(sends("Open").length, 5)
    note(binding.onTicketRemoved("s"), 3020)
    assert.strictEqual(sends("Close").length, 1)
  })

  it("ignores answers and notices that it cannot trust", () => {
    const { binding, log, on, start } = make()
    start()
    const before = log.length
    const forged = new Uint8Array(8).fill(0x77)
    on({ _tag: "RateLimited", mark: forged, retryAfterMs: 1 }, 5)
    on({ _tag: "Refused", nonce: forged, asked: "None", code: "revoked" }, 5)
    on({ _tag: "Refused", nonce: forged, asked: "Bind", code: "revoked" }, 5)
    on({ _tag: "Leg", mark: forged, tag: TAG, peerLeg: null }, 5)
    on({ _tag: "Bound", nonce: forged, mark: forged, lifetimeSeconds: 1, mapped: null }, 5)
    on({ _tag: "Cookie", nonce: forged, cookie: COOKIE }, 5)
    assert.strictEqual(log.length, before)
    assert.strictEqual(binding.phase, "bound")
    on({ _tag: "Refused", nonce: MARK, asked: "None", code: "revoked" }, 6)
    assert.deepStrictEqual(log.at(-1)!.output, { _tag: "Lost", reason: "revoked" })
  })

  it("waits longer after each refusal, and requests a new credential", () => {
    const { binding, note, on, nonce, runTo, sends, tags } = make()
    note(binding.onCredential(true, 0), 0)
    const gaps: Array<number> = []
    let at = 0
    for (const code of ["busy", "busy", "busy", "expired"] as const) {
      on({ _tag: "Cookie", nonce: nonce(), cookie: COOKIE }, at)
      on({ _tag: "Refused", nonce: nonce(), asked: "Bind", code }, at)
      assert.strictEqual(binding.phase, "refused")
      gaps.push(binding.wakeAt - at)
      at = binding.wakeAt
      runTo(at)
    }
    assert.deepStrictEqual(gaps, [1000, 2000, 4000, 8000])
    assert.strictEqual(sends("BindRequest").length, 5)
    assert.strictEqual(tags().filter((tag) => tag === "NeedCredential").length, 1)
  })

  it("keeps a binding whose refresh is refused as busy", () => {
    const { binding, log, on, nonce, runTo, sends, start, tags } = make()
    start()
    for (let at = 0; at <= 150_000; at += 1000) binding.onTraffic(at)
    runTo(150_000)
    on({ _tag: "Cookie", nonce: nonce(), cookie: COOKIE }, 150_001)
    on({ _tag: "Refused", nonce: nonce(), asked: "Bind", code: "busy" }, 150_002)
    const before = log.length
    runTo(150_900)
    assert.strictEqual(log.length, before)
    assert.strictEqual(binding.phase, "bound")
    runTo(151_002)
    assert.strictEqual(sends("BindRequest").length, 3)
    assert.notInclude(tags(), "Lost")
  })

  it("drops a ticket that is refused permanently, and retries others", () => {
    const { binding, log, note, on, start } = make()
    start()
    const open = (id: string): Uint8Array => {
      const [first] = note(binding.onTicket(id, TAG, TICKET, 0), 0)
      return first?._tag === "Send" && first.message._tag === "Open" ? first.message.nonce : new Uint8Array(8)
    }
    on({ _tag: "Refused", nonce: open("a"), asked: "Open", code: "expired" }, 1)
    assert.deepStrictEqual(log.at(-1)!.output, { _tag: "TicketRefused", session: "a", reason: "expired" })
    on({ _tag: "Refused", nonce: open("b"), asked: "Open", code: "busy" }, 1)
    assert.strictEqual(binding.wakeAt, 1001)
  })

  it("is bound by the relay's first message over a link", () => {
    const { binding, log, on, runTo, sends, tags } = make("link")
    assert.strictEqual(binding.wakeAt, Infinity)
    on({ _tag: "Bound", nonce: new Uint8Array(8), mark: MARK, lifetimeSeconds: 65535, mapped: null }, 0)
    assert.strictEqual(binding.phase, "bound")
    runTo(21_000)
    assert.strictEqual(sends("Ping").length, 4)
    assert.deepStrictEqual(log.at(-1)!.output, { _tag: "Lost", reason: "unanswered" })
    assert.notInclude(tags(), "UdpBlocked")
    assert.strictEqual(binding.wakeAt, Infinity)
  })

  it("never throws, rests in the past or sends busily", () => {
    const refusal = fc.constantFrom<Refusal>(
      "bad_cookie",
      "expired",
      "busy",
      "full",
      "revoked",
      "not_bound",
      "bad_signature"
    )
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.nat(30_000) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("cookie" as const) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("bound" as const), mark: fc.nat(1), life: fc.nat(300) }) },
      fc.record({ do: fc.constantFrom("credential" as const, "network" as const), has: fc.boolean() }),
      fc.record({
        do: fc.constant("refuse" as const),
        code: refusal,
        asked: fc.constantFrom("Bind" as const, "Open" as const, "None" as const)
      }),
      fc.record({
        do: fc.constantFrom("rebind" as const, "pong" as const, "opened" as const, "ticket" as const, "untick" as const)
      })
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { binding, log, nonce, note, on, sends } = make()
        const zero = new Uint8Array(8)
        const openNonce = () => {
          const last = sends("Open").at(-1)?.output
          return last?._tag === "Send" && last.message._tag === "Open" ? last.message.nonce : zero
        }
        const ask = () =>
          log.some(({ output }) =>
            output._tag === "SendBind" || (output._tag === "Send" && output.message._tag === "BindRequest")
          )
        let now = 0
        let inputs = 0
        const wake = (end: number) => {
          while (binding.wakeAt <= end) {
            now = Math.max(now, binding.wakeAt)
            note(binding.onTick(now), now)
            assert.isAbove(binding.wakeAt, now, "due again at once")
            assert.deepStrictEqual(binding.onTick(now), [])
          }
          now = end
        }
        note(binding.onCredential(true, now), now)
        for (const one of steps) {
          if (one.do === "wait") {
            wake(now + one.ms)
            continue
          }
          inputs++
          const n = ask() ? nonce() : zero
          if (one.do === "cookie") on({ _tag: "Cookie", nonce: n, cookie: COOKIE }, now)
          if (one.do === "bound") {
            on({
              _tag: "Bound",
              nonce: n,
              mark: new Uint8Array(8).fill(one.mark),
              lifetimeSeconds: one.life,
              mapped: MAPPED
            }, now)
          }
          if (one.do === "credential") note(binding.onCredential(one.has, now), now)
          if (one.do === "network") note(binding.onNetworkChanged(now), now)
          if (one.do === "refuse") {
            on({
              _tag: "Refused",
              nonce: one.asked === "Open" ? openNonce() : one.asked === "None" ? new Uint8Array(8).fill(1) : n,
              asked: one.asked,
              code: one.code
            }, now)
          }
          if (one.do === "rebind") {
            on({ _tag: "Rebind", echo: Uint8Array.from([0, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66]) }, now)
          }
          if (one.do === "opened") {
            on({ _tag: "Opened", nonce: openNonce(), tag: TAG, peerLeg: null }, now)
          }
          if (one.do === "ticket") note(binding.onTicket("s", TAG, TICKET, now), now)
          if (one.do === "untick") note(binding.onTicketRemoved("s"), now)
          wake(now)
        }
        // Each input starts at most one fast series (4 handshake sends twice, 4 pings, 6 opens); time alone sends slowly.
        const sent = log.filter(({ output }) => output._tag === "Send" || output._tag === "SendBind").length
        assert.isAtMost(sent, 20 * (inputs + 1) + (2 * now) / 1000)
      }),
      { numRuns: runs(1500) }
    )
  })
})
