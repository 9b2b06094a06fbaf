/** The relay's TURN as other people's clients use it: coturn's `turnutils_uclient`, and libjuice inside node-datachannel. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { createSocket } from "node:dgram"
import * as TurnWorld from "../suite/support/TurnWorld.ts"

interface Ran {
  readonly code: number | null
  readonly output: string
}

/** Ends by itself: each test gives a count of messages. */
const uclient = (args: ReadonlyArray<string>) =>
  Effect.async<Ran>((resume) => {
    const child = spawn("turnutils_uclient", args, { timeout: 30_000 })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => output += chunk.toString())
    child.stderr.on("data", (chunk: Buffer) => output += chunk.toString())
    child.on("close", (code) => resume(Effect.succeed({ code, output })))
    return Effect.sync(() => child.kill())
  })

/** Sends every datagram back. */
const echo = Effect.acquireRelease(
  Effect.async<{ readonly port: number; readonly close: () => void }>((resume) => {
    const socket = createSocket("udp4")
    socket.on("message", (bytes, from) => socket.send(bytes, from.port, from.address))
    socket.bind(
      0,
      TurnWorld.HOST,
      () => resume(Effect.succeed({ port: socket.address().port, close: () => socket.close() }))
    )
  }),
  ({ close }) => Effect.sync(close)
)

/** What it counts at its end. */
const totals = (output: string) => ({
  sent: Number(/tot_send_msgs=(\d+)/g.exec(output.slice(output.lastIndexOf("tot_send_msgs")))?.[1]),
  received: Number(/tot_recv_msgs=(\d+)/g.exec(output.slice(output.lastIndexOf("tot_recv_msgs")))?.[1])
})

const MESSAGES = 200
const signedIn = ({ password, username }: { readonly username: string; readonly password: string }, port: number) => [
  "-u",
  username,
  "-w",
  password,
  "-p",
  String(port)
]
const peerAt = (port: number, host = TurnWorld.HOST) => ["-e", host, "-r", String(port)]
/** Two clients, no RTCP, 1000 bytes every 5 ms. The server's address comes last. */
const load = (messages: number) => ["-n", String(messages), "-m", "2", "-c", "-l", "1000", "-z", "5", TurnWorld.HOST]

describe("TURN by turnutils_uclient", () => {
  for (const transport of ["udp", "tcp"] as const) {
    for (const [way, flags] of [["channels", []], ["Send and Data indications", ["-s"]]] as const) {
      it.scoped(`carries datagrams to a peer and back over ${transport}, by ${way}`, () =>
        Effect.gen(function*() {
          const turn = yield* TurnWorld.start({ allowPeers: [TurnWorld.HOST] })
          const peer = yield* echo
          const port = transport === "udp" ? turn.udpPort : turn.tcpPort
          const ran = yield* uclient([
            ...(transport === "tcp" ? ["-t"] : []),
            ...flags,
            ...signedIn(turn.issue("node-1"), port),
            ...peerAt(peer.port),
            ...load(MESSAGES)
          ])
          assert.strictEqual(ran.code, 0, ran.output)
          assert.deepStrictEqual(totals(ran.output), { sent: 2 * MESSAGES, received: 2 * MESSAGES }, ran.output)
        }))
    }
  }
})
