/**
 * The addresses of this host, which of them leads out, and when that changes. Told by the system where it can (`ip monitor`), and
 * seen by looking ten times a second where it cannot; also told: that the host was asleep, after which nothing is as it was.
 */
import { Clock, Context, Effect, Layer, Mailbox, Option, Schedule, type Stream, SubscriptionRef } from "effect"
import { createSocket } from "node:dgram"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import * as Os from "node:os"
import * as Candidate from "../protocol/Candidate.ts"
import type * as CandidateGathering from "../protocol/CandidateGathering.ts"
import * as InterfaceUse from "../protocol/InterfaceUse.ts"
import * as LocalAddresses from "./LocalAddresses.ts"
import * as TiedChild from "./TiedChild.ts"

/** One literal address, and what the system tells about the interface that has it. */
export type InterfaceAddress = InterfaceUse.Traits & { readonly host: string; readonly family: 4 | 6 }
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
  /** The addresses of this host that packets to these literal addresses leave with, each once. Nothing is sent. */
  readonly towards: (hosts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>>
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
/**
 * The host was asleep if the wall clock has gone this much further than the monotonic one, or if a look is this late. Time for
 * which a busy host made this thread wait for a processor does not count: nothing has changed in it.
 */
const SLEPT_MS = 5_000
const MONITOR_RETRY = "10 seconds"

export type Read = () => ReturnType<typeof Os.networkInterfaces>
/** What the kernel tells about an interface beside its addresses. */
export type Device = Pick<InterfaceUse.Traits, "isTun" | "isInnerBridge">
const NO_DEVICE: Device = { isTun: false, isInnerBridge: false }
export interface Sources {
  readonly read: Read
  /** Asked once for each interface that appears. */
  readonly device: (name: string) => Device
  readonly outward: Effect.Effect<Outward>
  /** The address that packets to this one leave with; `null` without a route. */
  readonly source: (host: string) => Effect.Effect<string | null>
  /** How long this thread has run or waited for a processor, ms. */
  readonly busyMs: () => number
  /** Never ends, and calls `look` whenever something may have changed. */
  readonly hints: (look: () => void) => Effect.Effect<never>
}

/** The usable addresses in what the system tells of its interfaces. */
export const addressesOf = (
  interfaces: ReturnType<Read>,
  deviceOf: (name: string) => Device = () => NO_DEVICE
): ReadonlyArray<InterfaceAddress> => {
  const out: Array<InterfaceAddress> = []
  for (const [name, infos] of Object.entries(interfaces)) {
    for (const { address, mac } of infos ?? []) {
      const host = Candidate.canonical(address)
      if (host === null || !Candidate.isUsableHost(host, true)) continue
      const loopback = Candidate.isLoopback(host)
      const traits = { name, loopback, hasMac: mac !== NO_MAC, ...deviceOf(name) }
      out.push({ ...traits, host, family: Candidate.familyOf(host) })
    }
  }
  return out.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
}

/**
 * This host's addresses with the use of each, as candidates are chosen from. `towards`: those that packets to relays leave with, which
 * count like the one of the default route. A relay may be reached through a LAN without one, or through another VPN.
 */
export const hostsOf = (
  { addresses, outward }: NetworkState,
  rules: InterfaceUse.Rules = InterfaceUse.NO_RULES,
  towards: ReadonlyArray<string> = []
): ReadonlyArray<CandidateGathering.Host> =>
  addresses.map((address) => ({
    host: address.host,
    interface: address.name,
    use: InterfaceUse.of(address, [outward.v4, outward.v6, ...towards].includes(address.host), rules)
  }))

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

type Clocks = { readonly wallMs: number; readonly monotonicMs: number; readonly busyMs: number }
/** Whether the host slept between two looks. The wall clock goes on in a sleep, the monotonic one may or may not. */
export const hasSlept = (before: Clocks, now: Clocks): boolean => {
  const passed = now.monotonicMs - before.monotonicMs
  const busy = now.busyMs - before.busyMs
  return passed - busy > SLEPT_MS || now.wallMs - before.wallMs - passed > SLEPT_MS
}

/**
 * Whether only addresses changed that no packet to the internet leaves with and that lead to no other host: a container has started
 * or ended, or another VPN has. Paths to peers are not touched by that.
 */
export const isInner = (
  before: NetworkState,
  now: NetworkState,
  rules: InterfaceUse.Rules,
  towards: ReadonlyArray<string> = []
): boolean => {
  const outer = (state: NetworkState) =>
    hostsOf(state, rules, towards).filter(({ use }) => !INNER.has(use)).map((it) =>
      `${it.interface}|${it.host}|${it.use}`
    )
      .join()
  return before.wakes === now.wakes && before.outward.v4 === now.outward.v4 && before.outward.v6 === now.outward.v6 &&
    outer(before) === outer(now)
}
const INNER: ReadonlySet<InterfaceUse.Use> = new Set(["virtual", "tunnel", "excluded"])

const isGone = (host: string | null, { addresses }: NetworkState): boolean =>
  host !== null && !addresses.some((address) => address.host === host)

const make = Effect.fnUntraced(function*(sources: Sources) {
  const hints = yield* Mailbox.make<void>({ capacity: 1, strategy: "dropping" })
  // Where the system refuses (EMFILE and the like), the last good answer stands.
  let devices = new Map<string, Device>()
  const readAddresses = (last: ReadonlyArray<InterfaceAddress>) =>
    Effect.try(() => {
      const interfaces = sources.read()
      const names = Object.keys(interfaces)
      // One that went and came back under its name may be another device.
      devices = new Map(names.map((name) => [name, devices.get(name) ?? sources.device(name)]))
      return addressesOf(interfaces, (name) => devices.get(name) ?? NO_DEVICE)
    }).pipe(Effect.orElseSucceed(() => last))
  const state = yield* SubscriptionRef.make<NetworkState>({
    addresses: yield* readAddresses([]),
    outward: yield* sources.outward,
    wakes: 0
  })
  const slept = yield* sleepDetector(sources.busyMs)
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
  return NetworkWatch.of({
    current: SubscriptionRef.get(state),
    changes: state.changes,
    towards: (hosts) =>
      Effect.map(
        Effect.forEach(hosts, sources.source, { concurrency: "unbounded" }),
        (found) => [...new Set(found.filter((host) => host !== null))].sort()
      )
  })
})

/** True once after each sleep. */
const sleepDetector = Effect.fnUntraced(function*(busyMs: () => number) {
  const clocks = Effect.all({
    busyMs: Effect.sync(busyMs),
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

/** Destinations that stand for the internet: they are for documentation (RFC 5737, RFC 3849). */
const outwardOf = (family: 4 | 6) => sourceOf(family === 4 ? "192.0.2.1" : "2001:db8::1")

/** The kernel's choice of source address towards a literal address. Nothing is sent. */
const sourceOf = (host: string): Effect.Effect<string | null> =>
  Effect.async((resume) => {
    const socket = createSocket(Candidate.familyOf(host) === 4 ? "udp4" : "udp6")
    const done = (host: string | null) => {
      socket.removeAllListeners()
      socket.on("error", () => {})
      socket.close()
      resume(Effect.succeed(host))
    }
    socket.once("error", () => done(null))
    socket.once("connect", () => done(Candidate.canonical(socket.address().address)))
    socket.connect(9, host)
  })

const SYS = "/sys/class/net"
/** Other systems than Linux have no such folder; there names and hardware addresses must do. */
export const deviceOf = (name: string, root: string = SYS): Device => ({
  isTun: existsSync(`${root}/${name}/tun_flags`),
  isInnerBridge: existsSync(`${root}/${name}/bridge`) && !portsOf(name, root).some((port) => leadsOutside(port, root))
})
const portsOf = (bridge: string, root: string): ReadonlyArray<string> => entries(`${root}/${bridge}/brif`)
/** Whether a bridge's port is a network card, several of them joined, or a VLAN on one. */
const leadsOutside = (port: string, root: string): boolean =>
  existsSync(`${root}/${port}/device`) || existsSync(`${root}/${port}/bonding`) ||
  entries(`${root}/${port}`).some((entry) => entry.startsWith("lower_"))
const entries = (folder: string): ReadonlyArray<string> => {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

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

let lastBusyMs = 0
/**
 * The first two fields of the calling thread's `schedstat`, which are in ns. The last value stands while the file cannot be
 * read, for example for want of descriptors.
 */
const busyOfThread = (): number => {
  try {
    const [ranNs, waitedNs] = readFileSync("/proc/thread-self/schedstat", "latin1").split(" ")
    lastBusyMs = (Number(ranNs) + Number(waitedNs)) / 1e6
  } catch {
    // also a kernel without these statistics
  }
  return lastBusyMs
}

export const layerFrom = (sources: Sources): Layer.Layer<NetworkWatch> => Layer.scoped(NetworkWatch, make(sources))

export const layer: Layer.Layer<NetworkWatch> = layerFrom({
  read: LocalAddresses.interfaces,
  device: (name) => deviceOf(name),
  outward: Effect.all({ v4: outwardOf(4), v6: outwardOf(6) }, { concurrency: 2 }),
  source: sourceOf,
  busyMs: Os.platform() === "linux" ? busyOfThread : () => 0,
  hints: Os.platform() === "linux" ? ipMonitor : () => Effect.never
})

/** For tests: the state is what the test says, at once. */
export const layerTest = (
  state: SubscriptionRef.SubscriptionRef<NetworkState>,
  towards: Effect.Effect<ReadonlyArray<string>> = Effect.succeed([])
) =>
  Layer.succeed(NetworkWatch, { current: SubscriptionRef.get(state), changes: state.changes, towards: () => towards })
