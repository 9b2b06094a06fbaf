/** The relay's TURN as Chromium uses it, over both transports: what it carries, and which error each refusal shows there. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Browser, chromium } from "playwright-core"
import { afterAll, beforeAll } from "vitest"
import * as TurnWorld from "../suite/support/TurnWorld.ts"
import { CHROMIUM } from "./support/Chromium.ts"

const BYTES = 4 * 1024 * 1024

interface Carried {
  readonly received: number
  readonly local: string
  readonly remote: string
  readonly relayProtocol: string
}

/** Two ends in one page, by relayed candidates alone; `errors` are the codes of `icecandidateerror`. */
const SCRIPT = `
  const serverOf = ({ url, username, credential }) => ({ iceServers: [{ urls: url, username, credential }], iceTransportPolicy: "relay" })
  globalThis.refusal = (server) => new Promise((resolve) => {
    const peer = new RTCPeerConnection(serverOf(server))
    peer.addEventListener("icecandidateerror", ({ errorCode }) => {
      peer.close()
      resolve(errorCode)
    })
    peer.createDataChannel("x")
    peer.createOffer().then((offer) => peer.setLocalDescription(offer))
  })
  globalThis.carry = async (server, bytes) => {
    const [left, right] = [new RTCPeerConnection(serverOf(server)), new RTCPeerConnection(serverOf(server))]
    for (const [from, to] of [[left, right], [right, left]]) {
      from.addEventListener("icecandidate", ({ candidate }) => candidate && to.addIceCandidate(candidate))
    }
    const received = new Promise((resolve) => right.addEventListener("datachannel", ({ channel }) => {
      let all = 0
      channel.addEventListener("message", ({ data }) => {
        all += data.byteLength
        if (all >= bytes) resolve(all)
      })
    }))
    const channel = left.createDataChannel("x")
    await left.setLocalDescription(await left.createOffer())
    await right.setRemoteDescription(left.localDescription)
    await right.setLocalDescription(await right.createAnswer())
    await left.setRemoteDescription(right.localDescription)
    await new Promise((open) => channel.addEventListener("open", open))
    for (let sent = 0; sent < bytes; sent += 65536) channel.send(new Uint8Array(65536))
    const all = await received
    const stats = new Map(await left.getStats())
    const { selectedCandidatePairId } = [...stats.values()].find(({ type }) => type === "transport")
    const { localCandidateId, remoteCandidateId } = stats.get(selectedCandidatePairId)
    const local = stats.get(localCandidateId)
    left.close()
    right.close()
    return {
      received: all,
      local: local.candidateType,
      remote: stats.get(remoteCandidateId).candidateType,
      relayProtocol: local.relayProtocol
    }
  }`

describe("TURN by Chromium", () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] })
  })
  afterAll(() => browser?.close())

  const page = Effect.acquireRelease(
    Effect.promise(async () => {
      const opened = await browser.newPage()
      await opened.evaluate(SCRIPT)
      return opened
    }),
    (it) => Effect.promise(() => it.close())
  )
  const urlOf = ({ tcpPort, udpPort }: TurnWorld.Turn, transport: "tcp" | "udp") =>
    `turn:${TurnWorld.HOST}:${transport === "tcp" ? tcpPort : udpPort}?transport=${transport}`
  const serverOf = (turn: TurnWorld.Turn, transport: "tcp" | "udp", login: TurnWorld.Login) =>
    JSON.stringify({ url: urlOf(turn, transport), username: login.username, credential: login.password })

  for (const transport of ["udp", "tcp"] as const) {
    it.scopedLive(`carries a data channel between two clients over ${transport}`, () =>
      Effect.gen(function*() {
        const turn = yield* TurnWorld.start({ allowPeers: [TurnWorld.HOST], answerShort: transport === "udp" })
        const tab = yield* page
        const server = serverOf(turn, transport, turn.issue("node-1"))
        const carried = yield* Effect.promise(() => tab.evaluate<Carried>(`carry(${server}, ${BYTES})`))
        assert.deepStrictEqual(carried, {
          received: BYTES,
          local: "relay",
          remote: "relay",
          relayProtocol: transport
        })
        assert.isAbove(turn.server.stats.toClients.bytes, BYTES)
      }))
  }

  const refuses = (
    what: string,
    code: number,
    login: (turn: TurnWorld.Turn) => TurnWorld.Login,
    settings: TurnWorld.Settings = {}
  ) =>
    it.scopedLive(`is refused for ${what}: ${code}`, () =>
      Effect.gen(function*() {
        const turn = yield* TurnWorld.start(settings)
        const tab = yield* page
        const seen = yield* Effect.promise(() => tab.evaluate<number>(`refusal(${serverOf(turn, "tcp", login(turn))})`))
        assert.strictEqual(seen, code)
        assert.strictEqual(turn.server.stats.allocations.made, 0)
      }))
  refuses("a wrong password", 401, (turn) => ({ ...turn.issue("node-1"), password: "wrong" }))
  refuses("expired credentials", 401, (turn) => turn.issue("node-1", -1))
  refuses("more allocations than the quota", 486, (turn) => turn.issue("node-1"), { limits: { perUser: 0 } })
})
