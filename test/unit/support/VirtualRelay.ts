/** A relay in virtual time, at which a node binds. It ends what has expired. Times in ms. */
import { Effect, Either } from "effect"
import type * as BindingLoop from "../../../src/actors/relay/BindingLoop.ts"
import type { SocketAddr } from "../../../src/protocol/bytes/SocketAddr.ts"
import * as RelayWire from "../../../src/protocol/relay/RelayWire.ts"
import { NORMAL } from "../../../src/protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../../src/protocol/trust/NodeKey.ts"
import type { Signed } from "../../../src/protocol/trust/Signed.ts"

/** How many lifetimes of a binding and a credential a test passes. */
export const LIVES = 4

const COOKIE = new Uint8Array(20).fill(0xcc)
const MARK = new Uint8Array(8).fill(0xaa)
const MAPPED = { host: "198.51.100.7", port: 40_123 }

/** A credential that says when it was issued, in ms. */
const credentialAt = (issuedAt: number): Signed => ({
  payload: new Uint8Array(new Float64Array([issuedAt]).buffer),
  signature: new Uint8Array(64)
})

/** What the test drives: the node's binding or bindings at the relay. */
interface Driven {
  readonly wakeAt: number
  readonly onCredential: (now: number) => Effect.Effect<void>
  readonly onTick: (now: number) => Effect.Effect<void>
  readonly onMessage: (from: SocketAddr, message: RelayWire.Message, now: number) => Effect.Effect<unknown>
}

/** A relay, and a node that `make` binds at it. */
export const setup = <A extends Driven>(make: (node: BindingLoop.Node) => A) => {
  const everywhere: (to: SocketAddr) => boolean = () => true
  const world = { now: 1_000_000, answers: everywhere }
  const seen = { told: new Array<boolean>(), binds: 0, pings: 0, sentTo: new Array<string>() }
  /** What the relay knows of this node. */
  let held = { heardAt: -Infinity, endsAt: -Infinity }
  let credential: Signed | null = null
  let answers: Array<{ readonly from: SocketAddr; readonly message: RelayWire.Message }> = []
  const isBound = () => world.now < held.endsAt && world.now - held.heardAt < NORMAL.binding * 1000

  const answer = (asked: RelayWire.Message): RelayWire.Message | null => {
    if (asked._tag === "BindRequest") return { _tag: "Cookie", nonce: asked.nonce, cookie: COOKIE }
    if (asked._tag === "Ping") {
      seen.pings++
      if (!isBound()) return null
      held.heardAt = world.now
      return { _tag: "Pong", echo: asked.echo }
    }
    if (asked._tag !== "Bind") return null
    const [issuedAt = 0] = new Float64Array(Uint8Array.from(asked.credential.payload).buffer)
    const endsAt = issuedAt + NORMAL.credential * 1000
    if (endsAt <= world.now) return null
    seen.binds++
    held = { heardAt: world.now, endsAt }
    return { _tag: "Bound", nonce: asked.nonce, mark: MARK, lifetimeSeconds: NORMAL.binding, mapped: MAPPED }
  }
  const mux = {
    SendControl: ({ bytes, to }: { bytes: Uint8Array; to: SocketAddr }) =>
      Effect.sync(() => {
        seen.sentTo.push(to.host)
        if (!world.answers(to)) return
        const message = answer(Either.getOrThrow(RelayWire.decode(bytes)))
        if (message !== null) answers.push({ from: to, message })
      }),
    UseRelay: ({ bound }: { bound: boolean }) => Effect.sync(() => void seen.told.push(bound))
  }
  const driven = make({
    identity: { key: "A".repeat(43) as NodeKey, sign: () => new Uint8Array(64) },
    mux: { ask: (call: (it: typeof mux) => Effect.Effect<unknown>) => call(mux) } as never,
    tickets: new Map(),
    credential: () => credential
  })
  const renew = Effect.suspend(() => {
    credential = credentialAt(world.now)
    return driven.onCredential(world.now)
  })
  const pass = Effect.fnUntraced(function*(seconds: number) {
    const until = world.now + seconds * 1000
    for (;;) {
      for (const { from, message } of answers.splice(0)) yield* driven.onMessage(from, message, world.now)
      if (answers.length > 0) continue
      if (driven.wakeAt > until) break
      world.now = Math.max(world.now, driven.wakeAt)
      yield* driven.onTick(world.now)
    }
    world.now = until
  })
  /** Passes several lives of the credential, each renewed in time. */
  const passLives = (check: (what: string) => void) =>
    Effect.gen(function*() {
      for (let second = 0; second < LIVES * NORMAL.credential; second += NORMAL.credentialRefresh) {
        yield* pass(NORMAL.credentialRefresh)
        check(`after ${second} s`)
        yield* renew
        yield* pass(5)
      }
    })
  return { driven, isBound, pass, passLives, renew, seen, world }
}
