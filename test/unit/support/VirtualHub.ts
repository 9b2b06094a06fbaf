/** A directory's hub as nodes see it, in virtual time and over links in memory, and the state of a node that has enrolled there. */
import { RpcServer } from "@effect/rpc"
import { Effect, Layer, PubSub, Stream, TestClock } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { RelaySignalingRpcs, type SignalingEvent } from "../../../src/actors/signaling/RelaySignalingRpcs.ts"
import type { RelayPoint } from "../../../src/protocol/relay/RelayPoint.ts"
import * as Authority from "../../../src/services/identity/Authority.ts"
import * as Enrolment from "../../../src/services/identity/Enrolment.ts"
import * as Keys from "../../../src/services/identity/Keys.ts"
import * as RpcOverLink from "../../../src/session/RpcOverLink.ts"
import { MemoryLink } from "./MemoryLink.ts"

export const START = Date.parse("2026-03-01T12:00:00Z")

export const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "sallyport-virtual-hub-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)
export const newKey = () => {
  const key = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (key === null) throw new Error("no key")
  return key
}
/** The host's uptime is virtual, too. */
export const hostClock = Effect.map(Effect.clock, (clock) => ({ now: () => clock.unsafeCurrentTimeMillis() }))

/** A hub, and what a node needs to sign in there. `isWatched` says whether the hub sends events. */
export const make = Effect.fnUntraced(
  function*({ isWatched, role }: { readonly role: "client" | "relay"; readonly isWatched: boolean }) {
    yield* TestClock.setTime(START)
    const clock = yield* Effect.clock
    const stateDir = yield* folder
    const authority = Authority.make(newKey())
    const { publicKey } = yield* Keys.loadOrCreate(join(stateDir, Keys.NODE_KEY_FILE))
    const fields = { nodeKey: publicKey, name: "second", role, network: null } as const
    const home = { host: "192.0.2.1", httpsPort: 443, tls: { _tag: "Ca" as const }, authorityKey: authority.key }
    yield* Enrolment.make(stateDir).save(publicKey, home, yield* authority.membership(fields))

    const events = yield* PubSub.unbounded<SignalingEvent>()
    const hub = { listed: new Array<RelayPoint>(), signIns: 0, aheadMs: 0 } // how far its clock is ahead of this host's
    const now = () => clock.unsafeCurrentTimeMillis() + hub.aheadMs
    const snapshot = Effect.gen(function*() {
      hub.signIns++
      const credential = yield* authority.credential(publicKey)
      const relay = { host: home.host, httpsPort: 443, udpPort: 3478 }
      return { _tag: "Snapshot", version: 1, serverTime: now(), relay, relays: [], credential } as const
    })
    const unasked = () => Effect.die("not asked here")
    const handlers = RelaySignalingRpcs.toLayer({
      Watch: () => isWatched ? Stream.concat(Stream.fromEffect(snapshot), Stream.fromPubSub(events)) : Stream.never,
      Time: () => Effect.sync(now),
      PlaceRelay: (point) => Effect.sync(() => void hub.listed.push(point)),
      Dial: unasked,
      Ready: unasked,
      Decline: unasked,
      BrowsersLost: unasked,
      SessionsLost: unasked,
      Presence: unasked,
      Renew: unasked,
      TurnCredentials: unasked,
      Report: unasked,
      Findings: unasked,
      Resources: unasked,
      Forward: unasked
    })
    const rpc = yield* RpcOverLink.makeServer()
    yield* Effect.forkScoped(Layer.launch(
      RpcServer.layer(RelaySignalingRpcs).pipe(
        Layer.provide(handlers),
        Layer.provide(Layer.succeed(RpcServer.Protocol, rpc.protocol))
      )
    ))
    const links: Array<MemoryLink> = []
    const connect = Effect.gen(function*() {
      const [link, peer] = MemoryLink.pair()
      links.push(link)
      yield* Effect.forkScoped(rpc.serve(peer, publicKey))
      return { link, welcome: new Uint8Array(), localHost: "127.0.0.1" }
    })
    return {
      hub,
      links,
      stateDir,
      opener: { connect: () => connect },
      send: (event: SignalingEvent) => PubSub.publish(events, event)
    }
  }
)
