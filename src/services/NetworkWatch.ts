/**
 * The addresses of this host, which of them leads out, and when that changes. Told by the system where it can (`ip monitor`), and
 * seen by looking ten times a second where it cannot; also told: that the host was asleep, after which nothing is as it was.
 */
import { Clock, Context, Effect, Layer, Mailbox, Option, Schedule, type Stream, SubscriptionRef } from "effect"
import { createSocket } from "node:dgram"
import * as Os from "node:os"
import * as Candidate from "../protocol/Candidate.ts"
import * as TiedChild from "./TiedChild.ts"

/** One literal address on one interface. */
export type InterfaceAddress = {
  readonly name: string
  readonly host: string
  readonly family: 4 | 6
  readonly loopback: boolean
  /** Of an interface without a hardware address: a VPN's as a rule, or a modem's. */
  readonly tunnel: boolean
}
/** What packets to the internet leave with, by IP version; null: there is no route. */
export type Outward = { readonly v4: string | null; readonly v6: string | null }
export type NetworkState = {
  /** Sorted by interface and address; loopback is in it, link-local and other unusable addresses are not. */
  readonly addresses: ReadonlyArray<InterfaceAddress>
  readonly outward: Outward
  /** Counts up whenever the host turns out to have slept. */
  readonly wakes: number
}

export class NetworkWatch extends Context.Tag("sallyport/services/NetworkWatch")<NetworkWatch, {
  readonly current: Effect.Effect<NetworkState>
  /** The current state first, then each later one that is different and has held still for a moment. */
  readonly changes: Stream.Stream<NetworkState>
}>() {}

/** 57 µs of CPU each on a host with few interfaces: 0.06 % of a core. */
const POLL_MS = 100
/** A roam takes down one address and brings up another: one change is told, not two. Less than a user notices. */
const SETTLE_MS = 50
/** The same after the system has told of a change; its words come in bursts. */
const HINT_SETTLE_MS = 15
/** Looks between two questions for the way out, which costs two sockets: a change of route alone is seen within a second. */
const LOOKS_PER_OUTWARD = 10
const NO_MAC = "00:00:00:00:00:00"
/** A wall clock that has gone so much further than ours, or a look that is so late: the host was asleep. */
const SLEPT_MS = 5_000
const MONITOR_RETRY = "10 seconds"

export type Read = () => ReturnType<typeof Os.networkInterfaces>
export interface Sources {
  readonly read: Read
  readonly outward: Effect.Effect<Outward>
  /** Never ends, and calls `look` whenever something may have changed. */
  readonly hints: (look: () => void) => Effect.Effect<never>
}

/** What a read of the system's interfaces comes to. A failed read gives nothing, and is asked again at the next poll. */
export const addressesOf = (interfaces: ReturnType<Read>): ReadonlyArray<InterfaceAddress> => {
  const out: Array<InterfaceAddress> = []
  for (const [name, infos] of Object.entries(interfaces)) {
    for (const { address, mac } of infos ?? []) {
      const host = Candidate.canonical(address)
      if (host === null || !Candidate.isUsableHost(host, true)) continue
      const loopback = Candidate.isLoopback(host)
      out.push({ name, host, family: Candidate.familyOf(host), loopback, tunnel: !loopback && mac === NO_MAC })
    }
  }
  return out.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
}

/**
 * Addresses at which peers may try this host: not those of a tunnel, unless the way out leads through it. A path inside another
 * VPN answers as fast as the one around it, costs twice the work, and ends with that VPN.
 */
export const offered = ({ addresses, outward }: NetworkState): ReadonlyArray<string> =>
  addresses
    .filter(({ host, tunnel }) => !tunnel || host === outward.v4 || host === outward.v6)
    .map(({ host }) => host)

const keyOf = (address: InterfaceAddress): string => `${address.name}|${address.host}`
const fingerprint = ({ addresses, outward, wakes }: NetworkState): string =>
  [...addresses.map(keyOf), outward.v4, outward.v6, wakes].join()

// --------------------------------------------------------------------------------------------- what a change comes to

const FAMILIES = [["v4", 4], ["v6", 6]] as const

/** IP versions whose way out led by an address that is gone now. */
export const lost = (before: NetworkState, now: NetworkState): ReadonlyArray<4 | 6> =>
  FAMILIES.flatMap(([key, family]) => (isGone(before.outward[key], now) ? [family] : []))

/** IP versions with another way out, while the address that their sockets' packets left with (`bound`) is gone. */
export const replaced = (bound: Outward, now: NetworkState): ReadonlyArray<4 | 6> =>
  FAMILIES.flatMap(([key, family]) => (now.outward[key] !== null && isGone(bound[key], now) ? [family] : []))

/** What sockets are bound by after those of `stale` were opened anew; one that had no way out gets its first one. */
export const firstOf = (bound: Outward, outward: Outward, stale: ReadonlyArray<4 | 6>): Outward => ({
  v4: stale.includes(4) ? outward.v4 : bound.v4 ?? outward.v4,
  v6: stale.includes(6) ? outward.v6 : bound.v6 ?? outward.v6
})

export const reasonOf = (before: NetworkState, now: NetworkState): "woke" | "addresses" | "route" => {
  if (before.wakes !== now.wakes) return "woke"
  return before.addresses.map(keyOf).join() === now.addresses.map(keyOf).join() ? "route" : "addresses"
}

type Clocks = { readonly wallMs: number; readonly monotonicMs: number }
/** Between two looks: the wall clock goes on in a sleep, the monotonic one may or may not. */
export const hasSlept = (before: Clocks, now: Clocks): boolean => {
  const passed = now.monotonicMs - before.monotonicMs
  return passed > SLEPT_MS || now.wallMs - before.wallMs - passed > SLEPT_MS
}

const isGone = (host: string | null, { addresses }: NetworkState): boolean =>
  host !== null && !addresses.some((address) => address.host === host)

const make = Effect.fnUntraced(function*(sources: Sources) {
  const hints = yield* Mailbox.make<void>({ capacity: 1, strategy: "dropping" })
  // Where the system refuses (EMFILE and the like), the last good answer stands.
  const readAddresses = (last: ReadonlyArray<InterfaceAddress>) =>
    Effect.try(() => addressesOf(sources.read())).pipe(Effect.orElseSucceed(() => last))
  const state = yield* SubscriptionRef.make<NetworkState>({
    addresses: yield* readAddresses([]),
    outward: yield* sources.outward,
    wakes: 0
  })
  const slept = yield* sleepDetector
  let pending: string | null = null // a state seen once that differs from `state`: told when it is seen again
  let looks = 0

  /** Answers with how long to wait for the next look. */
  const look = Effect.fnUntraced(function*(hinted: boolean) {
    const before = yield* SubscriptionRef.get(state)
    const addresses = yield* readAddresses(before.addresses)
    const moved = addresses.map(keyOf).join() !== before.addresses.map(keyOf).join()
    const asks = hinted || moved || pending !== null || looks++ % LOOKS_PER_OUTWARD === 0
    const outward = asks ? yield* sources.outward : before.outward
    const now = { addresses, outward, wakes: before.wakes + ((yield* slept) ? 1 : 0) }
    const key = fingerprint(now)
    if (key === fingerprint(before)) {
      pending = null
      return POLL_MS
    }
    if (!hinted && now.wakes === before.wakes && pending !== key) {
      pending = key
      return SETTLE_MS
    }
    pending = null
    yield* SubscriptionRef.set(state, now)
    return POLL_MS
  })
  const settle = Effect.zipRight(Effect.sleep(HINT_SETTLE_MS), hints.clear)
  const watch = Effect.gen(function*() {
    let waitMs = yield* look(false)
    while (true) {
      const hinted = Option.isSome(yield* Effect.timeoutOption(hints.take, waitMs))
      if (hinted) yield* settle
      waitMs = yield* look(hinted)
    }
  })
  yield* Effect.forkScoped(watch)
  yield* Effect.forkScoped(sources.hints(() => void hints.unsafeOffer()))
  return NetworkWatch.of({ current: SubscriptionRef.get(state), changes: state.changes })
})

/** True once after each sleep. */
const sleepDetector = Effect.gen(function*() {
  const clocks = Effect.all({
    wallMs: Clock.currentTimeMillis,
    monotonicMs: Effect.map(Clock.currentTimeNanos, (ns) => Number(ns) / 1e6)
  })
  let last = yield* clocks
  return Effect.map(clocks, (now) => {
    const slept = hasSlept(last, now)
    last = now
    return slept
  })
})

/** The kernel's choice of source address; nothing is sent. The destinations are for documentation (RFC 5737, RFC 3849). */
const outwardOf = (family: 4 | 6): Effect.Effect<string | null> =>
  Effect.async((resume) => {
    const socket = createSocket(family === 4 ? "udp4" : "udp6")
    const done = (host: string | null) => {
      socket.removeAllListeners()
      socket.on("error", () => {})
      socket.close()
      resume(Effect.succeed(host))
    }
    socket.once("error", () => done(null))
    socket.once("connect", () => done(Candidate.canonical(socket.address().address)))
    socket.connect(9, family === 4 ? "192.0.2.1" : "2001:db8::1")
  })

/** Treats each line of `ip monitor` as a hint. Without that program changes are still found by polling. */
const ipMonitor = (look: () => void): Effect.Effect<never> =>
  Effect.async<TiedChild.How>((resume) => {
    const end = TiedChild.start("ip", ["-o", "monitor", "link", "address", "route"], {
      onOutput: look,
      onEnd: (how) => resume(Effect.succeed(how))
    })
    return Effect.sync(end)
  }).pipe(
    Effect.repeat(Schedule.spaced(MONITOR_RETRY).pipe(Schedule.whileInput((how: string) => how === "ended"))),
    Effect.zipRight(Effect.logDebug("no ip monitor here: changes of the network are seen by looking")),
    Effect.zipRight(Effect.never)
  )

export const layerFrom = (sources: Sources): Layer.Layer<NetworkWatch> => Layer.scoped(NetworkWatch, make(sources))

export const layer: Layer.Layer<NetworkWatch> = layerFrom({
  read: () => Os.networkInterfaces(),
  outward: Effect.all({ v4: outwardOf(4), v6: outwardOf(6) }, { concurrency: 2 }),
  hints: Os.platform() === "linux" ? ipMonitor : () => Effect.never
})

/** For tests: the state is what the test says, at once. */
export const layerTest = (state: SubscriptionRef.SubscriptionRef<NetworkState>) =>
  Layer.succeed(NetworkWatch, { current: SubscriptionRef.get(state), changes: state.changes })
