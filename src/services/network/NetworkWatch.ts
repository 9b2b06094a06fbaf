/**
 * Watches the addresses of this host, the source addresses of its default routes, and whether the
 * host slept.
 *
 * On Linux the system reports changes (`ip monitor`). Everywhere, and also without that program,
 * the state is polled ten times a second. After a sleep the counter `wakes` goes up, because NAT
 * mappings and sessions may be gone by then.
 */
import { Clock, Context, Effect, Layer, Mailbox, Option, Schedule, type Stream, SubscriptionRef } from "effect"
import { createSocket } from "node:dgram"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import * as Os from "node:os"
import { familyOf } from "../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as InterfaceUse from "../../protocol/candidate/InterfaceUse.ts"
import type * as CandidateGathering from "../../protocol/nat/CandidateGathering.ts"
import { nowMs } from "../../session/MonotonicClock.ts"
import * as TiedChild from "../host/TiedChild.ts"
import * as LocalAddresses from "./LocalAddresses.ts"

/** One literal address of this host, and what the system says about its interface. */
export type InterfaceAddress = InterfaceUse.Traits & { readonly host: string; readonly family: 4 | 6 }
/** Source address of packets to the internet, for each IP version. `null` if there is no route. */
export type Outward = { readonly v4: string | null; readonly v6: string | null }
/** The network of this host at one moment. */
export type NetworkState = {
  /**
   * Usable addresses of this host, sorted by interface and address. They include loopback, but not
   * link-local addresses.
   */
  readonly addresses: ReadonlyArray<InterfaceAddress>
  /** Source addresses of packets to the internet. */
  readonly outward: Outward
  /** Number of times that the host was found to have slept. */
  readonly wakes: number
}

/** Watches this host's network and reports its changes. */
export class NetworkWatch extends Context.Tag("sallyport/services/NetworkWatch")<NetworkWatch, {
  /** The state of the network now. */
  readonly current: Effect.Effect<NetworkState>
  /** Emits the current state, then each different one once it has been stable for a moment. */
  readonly changes: Stream.Stream<NetworkState>
  /**
   * Returns this host's source addresses for packets to these literal addresses, without
   * duplicates. Sends nothing.
   */
  readonly towards: (hosts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>>
}>() {}

/**
 * Time between two looks at the interfaces. One look costs 57 µs of CPU on a host with few
 * interfaces, so polling costs 0.06 % of a core.
 */
const POLL_MS = 100
/** The same time while the system reports changes by itself. A look then only finds a sleep. */
const WATCHED_POLL_MS = 500
/**
 * How long a new state must be stable before it is reported. A roam removes one address and adds
 * another; they should be reported as one change. The delay is too short for a user to notice.
 */
const SETTLE_MS = 50
/** The same delay after the system reported a change. Its reports come in bursts. */
const HINT_SETTLE_MS = 15
/**
 * Number of looks per query of the default route, which costs two sockets. A change of the route
 * alone is noticed within a second, or within 5 seconds if the system should have reported it.
 */
const LOOKS_PER_OUTWARD = 10
const NO_MAC = "00:00:00:00:00:00"
/**
 * The host has slept if the wall clock advanced this much more than the monotonic clock, or if a
 * look is this late. Time in which this thread ran or waited for a processor does not count,
 * because a busy host has not slept.
 */
const SLEPT_MS = 5_000
/** Delay before a failed `ip monitor` is started again. */
const MONITOR_RETRY = "10 seconds"

/** Lists this host's interfaces, in the shape of `os.networkInterfaces`. */
export type Read = () => ReturnType<typeof Os.networkInterfaces>
/** The kernel's information about an interface, in addition to its addresses. */
export type Device = Pick<InterfaceUse.Traits, "isTun" | "isInnerBridge">
const NO_DEVICE: Device = { isTun: false, isInnerBridge: false }
/** The system as {@link NetworkWatch} reads it. Tests replace it. */
export interface Sources {
  readonly read: Read
  /** Called once for each interface that appears. */
  readonly device: (name: string) => Device
  /** Asks the system for the source addresses of packets to the internet. */
  readonly outward: Effect.Effect<Outward>
  /** Returns the source address for packets to `host`, or `null` if there is no route. */
  readonly source: (host: string) => Effect.Effect<string | null>
  /** How long this thread has run or waited for a processor, in ms. */
  readonly busyMs: () => number
  /**
   * Calls `look` whenever something may have changed, and `watching` when it begins or ceases to
   * see changes. Never ends.
   */
  readonly hints: (look: () => void, watching: (isWatching: boolean) => void) => Effect.Effect<never>
}

/** Returns the usable addresses among the system's interfaces. */
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
      out.push({ ...traits, host, family: familyOf(host) })
    }
  }
  return out.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
}

/**
 * Returns this host's addresses with the use of each, as input for choosing candidates.
 *
 * `towards` are the source addresses of packets to relays. They count like the address of the
 * default route, because a relay may be reached through a LAN without a default route, or through
 * another VPN.
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

// ----------------------------------------------------------------------------- effects of a change

const FAMILIES = [["v4", 4], ["v6", 6]] as const

/** Returns the IP versions whose default route used an address that this host has lost. */
export const lost = (before: NetworkState, now: NetworkState): ReadonlyArray<4 | 6> =>
  FAMILIES.flatMap(([key, family]) => (isGone(before.outward[key], now) ? [family] : []))

/**
 * Returns the IP versions whose default route has changed, and whose sockets are bound to an
 * address (`bound`) that this host has lost.
 */
export const replaced = (bound: Outward, now: NetworkState): ReadonlyArray<4 | 6> =>
  FAMILIES.flatMap(([key, family]) => (now.outward[key] !== null && isGone(bound[key], now) ? [family] : []))

/**
 * Returns the source address of each IP version's sockets after those in `stale` were reopened. A
 * version that had no default route before takes the current one.
 */
export const firstOf = (bound: Outward, outward: Outward, stale: ReadonlyArray<4 | 6>): Outward => ({
  v4: stale.includes(4) ? outward.v4 : bound.v4 ?? outward.v4,
  v6: stale.includes(6) ? outward.v6 : bound.v6 ?? outward.v6
})

/**
 * Returns the reason for a change between two states. If several apply, a wake-up counts before
 * addresses, and addresses before the route.
 */
export const reasonOf = (before: NetworkState, now: NetworkState): "woke" | "addresses" | "route" => {
  if (before.wakes !== now.wakes) return "woke"
  return before.addresses.map(keyOf).join() === now.addresses.map(keyOf).join() ? "route" : "addresses"
}

type Clocks = { readonly wallMs: number; readonly monotonicMs: number; readonly busyMs: number }
/**
 * Whether the host slept between two looks. The wall clock advances during a sleep; the monotonic
 * clock may or may not.
 */
export const hasSlept = (before: Clocks, now: Clocks): boolean => {
  const passed = now.monotonicMs - before.monotonicMs
  const busy = now.busyMs - before.busyMs
  return passed - busy > SLEPT_MS || now.wallMs - before.wallMs - passed > SLEPT_MS
}

/**
 * Whether a change is internal to this host, so that paths to peers stay as they are: a container
 * or another VPN started or stopped. The changed addresses are not the source of internet traffic
 * and lead to no other host.
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
  // If the system refuses (for example with EMFILE), the last good answer stays.
  let devices = new Map<string, Device>()
  const readAddresses = (last: ReadonlyArray<InterfaceAddress>) =>
    Effect.try(() => {
      const interfaces = sources.read()
      const names = Object.keys(interfaces)
      // An interface that disappears and comes back under the same name may be another device.
      devices = new Map(names.map((name) => [name, devices.get(name) ?? sources.device(name)]))
      return addressesOf(interfaces, (name) => devices.get(name) ?? NO_DEVICE)
    }).pipe(Effect.orElseSucceed(() => last))
  const state = yield* SubscriptionRef.make<NetworkState>({
    addresses: yield* readAddresses([]),
    outward: yield* sources.outward,
    wakes: 0
  })
  const slept = yield* sleepDetector(sources.busyMs)
  // a state that was seen once and differs from `state`; it is reported if it is seen again
  let pending: string | null = null
  let looks = 0
  let pollMs = POLL_MS

  /**
   * Compares the current state with the reported one. Returns how long to wait before the next
   * look.
   */
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
      return pollMs
    }
    if (!hinted && now.wakes === before.wakes && pending !== key) {
      pending = key
      return SETTLE_MS
    }
    pending = null
    yield* SubscriptionRef.set(state, now)
    return pollMs
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
  const onWatching = (isWatching: boolean) => {
    pollMs = isWatching ? WATCHED_POLL_MS : POLL_MS
  }
  yield* Effect.forkScoped(sources.hints(() => void hints.unsafeOffer(), onWatching))
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

/** Yields `true` once after each sleep. */
const sleepDetector = Effect.fnUntraced(function*(busyMs: () => number) {
  const clocks = Effect.all({
    busyMs: Effect.sync(busyMs),
    wallMs: Clock.currentTimeMillis,
    monotonicMs: nowMs
  })
  let last = yield* clocks
  return Effect.map(clocks, (now) => {
    const slept = hasSlept(last, now)
    last = now
    return slept
  })
})

/**
 * Source address towards the internet, which addresses reserved for documentation stand for (RFC
 * 5737, RFC 3849).
 */
const outwardOf = (family: 4 | 6) => sourceOf(family === 4 ? "192.0.2.1" : "2001:db8::1")

/** Asks the kernel which source address it would use towards a literal address. Sends nothing. */
const sourceOf = (host: string): Effect.Effect<string | null> =>
  Effect.async((resume) => {
    const socket = createSocket(familyOf(host) === 4 ? "udp4" : "udp6")
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
/**
 * Reads an interface's device traits from sysfs. Systems other than Linux have no sysfs. There,
 * both traits are `false`, and the interface's name and hardware address decide.
 */
export const deviceOf = (name: string, root: string = SYS): Device => ({
  isTun: existsSync(`${root}/${name}/tun_flags`),
  isInnerBridge: existsSync(`${root}/${name}/bridge`) && !portsOf(name, root).some((port) => leadsOutside(port, root))
})
const portsOf = (bridge: string, root: string): ReadonlyArray<string> => entries(`${root}/${bridge}/brif`)
/** Whether a bridge's port is a network card, a bond of several cards, or a VLAN on one. */
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

/**
 * Treats each line of `ip monitor` as a hint. Without that program, polling still finds the
 * changes.
 */
export const ipMonitor = (look: () => void, watching: (isWatching: boolean) => void): Effect.Effect<never> =>
  Effect.async<TiedChild.How>((resume) => {
    watching(true)
    const end = TiedChild.start("ip", ["-o", "monitor", "link", "address", "route"], {
      onOutput: look,
      onEnd: (how) => {
        watching(false)
        resume(Effect.succeed(how))
      }
    })
    return Effect.sync(end)
  }).pipe(
    Effect.repeat(Schedule.spaced(MONITOR_RETRY).pipe(Schedule.whileInput((how: string) => how === "ended"))),
    Effect.zipRight(Effect.logDebug("ip monitor is not available, so network changes are found by polling")),
    Effect.zipRight(Effect.never)
  )

let lastBusyMs = 0
/**
 * How long the calling thread has run or waited for a processor, in ms: the first two fields of its
 * `schedstat`, which are in ns. If the file cannot be read, for example for want of descriptors,
 * the last value stands.
 */
const busyOfThread = (): number => {
  try {
    const [ranNs, waitedNs] = readFileSync("/proc/thread-self/schedstat", "latin1").split(" ")
    lastBusyMs = (Number(ranNs) + Number(waitedNs)) / 1e6
  } catch {
    // also happens on a kernel without these statistics
  }
  return lastBusyMs
}

/** Layer of the service with other `sources` than the real system. */
export const layerFrom = (sources: Sources): Layer.Layer<NetworkWatch> => Layer.scoped(NetworkWatch, make(sources))

export const layer: Layer.Layer<NetworkWatch> = layerFrom({
  read: LocalAddresses.interfaces,
  device: (name) => deviceOf(name),
  outward: Effect.all({ v4: outwardOf(4), v6: outwardOf(6) }, { concurrency: 2 }),
  source: sourceOf,
  busyMs: Os.platform() === "linux" ? busyOfThread : () => 0,
  hints: Os.platform() === "linux" ? ipMonitor : () => Effect.never
})

/** Layer for tests. It reports the test's own `state` without delay. */
export const layerTest = (
  state: SubscriptionRef.SubscriptionRef<NetworkState>,
  towards: Effect.Effect<ReadonlyArray<string>> = Effect.succeed([])
) =>
  Layer.succeed(NetworkWatch, { current: SubscriptionRef.get(state), changes: state.changes, towards: () => towards })
