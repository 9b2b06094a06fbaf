/**
 * Keeps one local UDP port mapped at the default gateway, so that peers can reach it even if the
 * NAT filters or remaps other traffic.
 *
 * It uses PCP, NAT-PMP or UPnP, whichever answers first. One loop compares the wanted mapping with
 * the current one: on request, at half of the mapping's lifetime, and when the gateway announces
 * that it has restarted. IPv4 only.
 */
import { Context, Duration, Effect, Either, Layer, Mailbox, Option, Stream, SubscriptionRef } from "effect"
import { createSocket } from "node:dgram"
import * as Candidate from "../../../protocol/candidate/Candidate.ts"
import * as NatPmp from "../../../protocol/nat/NatPmp.ts"
import * as Pcp from "../../../protocol/nat/Pcp.ts"
import * as PortMapping from "../../../protocol/nat/PortMapping.ts"
import { nowMs } from "../../../session/MonotonicClock.ts"
import * as Crypto from "../../host/Crypto.ts"
import { type Ask, type Granted, PortMappingFailed, type Wish } from "./Asking.ts"
import * as FindGateway from "./Gateway.ts"
import * as IgdClient from "./IgdClient.ts"
import * as PcpClient from "./PcpClient.ts"

/** Keeps a port mapped at the gateway. The owner of the data plane's UDP socket names the port. */
export class PortMapper extends Context.Tag("sallyport/services/PortMapper")<PortMapper, {
  /** Sets the local port to keep mapped from now on, or `null` for none. Returns at once. */
  readonly follow: (port: number | null) => Effect.Effect<void>
  /**
   * Checks the gateway and the mapping again. Call it after a change of the network. Returns at
   * once.
   */
  readonly look: Effect.Effect<void>
  /**
   * Emits the current mapping, then each change; `null` if there is no mapping. The external
   * address may be private, if the gateway itself is behind another NAT.
   */
  readonly changes: Stream.Stream<PortMapping.PortMapping | null>
  /**
   * Reports which protocols the gateway speaks, without changing anything there. Takes at most
   * 1.5 s. Returns `null` if port mapping is switched off.
   */
  readonly probe: Effect.Effect<PortMapping.Report | null>
}>() {}

/** Longest wait for the answer to one protocol of {@link PortMapper}'s `probe`. */
const PROBE_DEADLINE = Duration.millis(1400)
/** Delay before the gateway is asked again after it granted nothing. Each failure doubles it. */
const RETRY_FIRST = Duration.seconds(15)
/**
 * Longest delay before the gateway is asked again. It may support none of the protocols, and an
 * occasional request does no harm.
 */
const RETRY_MOST = Duration.minutes(15)
/** Longest wait for the gateway to confirm that a mapping was released. */
const RELEASE_DEADLINE = Duration.millis(500)
/**
 * Shortest time between two checks on request. A restarted gateway announces itself ten times, and
 * nobody on the link can make this node ask more often.
 */
const LOOKS_APART = Duration.seconds(1)

/** The gateway's address and the ports that are used to talk to it. Tests replace them. */
export interface Sources {
  readonly gateway: Effect.Effect<string | null>
  readonly port: number
  /** UDP port on which UPnP devices are searched for. Tests use another one. */
  readonly ssdpPort: number
  /** UDP port on which gateways announce that they have restarted. */
  readonly announcePort: number
}

const ASKS: ReadonlyArray<readonly [PortMapping.Protocol, Ask]> = [
  ["pcp", PcpClient.pcp],
  ["nat-pmp", PcpClient.natPmp],
  ["upnp", IgdClient.upnp]
]

type Held = {
  readonly gateway: string
  readonly internalPort: number
  readonly nonce: Uint8Array
  readonly granted: Granted
}

const make = Effect.fnUntraced(function*(sources: Sources) {
  const state = yield* SubscriptionRef.make<PortMapping.PortMapping | null>(null)
  const looks = yield* Mailbox.make<void>({ capacity: 1, strategy: "dropping" })
  let wanted: number | null = null
  let held: Held | null = null
  let retry: Duration.Duration = RETRY_FIRST

  const hold = Effect.fnUntraced(function*(next: Held | null) {
    const before = held
    held = next
    if (isSame(before?.granted.external, next?.granted.external)) return
    const told = next === null ? null : { protocol: next.granted.protocol, external: next.granted.external }
    yield* SubscriptionRef.set(state, told)
    yield* Effect.logInfo(told === null ? "the port is no longer mapped at the gateway" : "port mapped at the gateway")
      .pipe(Effect.annotateLogs(told === null ? {} : { protocol: told.protocol, ...told.external }))
  })
  const release = Effect.suspend(() =>
    held === null ? Effect.void : Effect.asVoid(Effect.timeoutOption(held.granted.release, RELEASE_DEADLINE))
  )
  const noteRestart = (before: Granted | undefined, now: Granted) =>
    before?.epoch == null || now.epoch === null || now.protocol === "upnp" || before.protocol !== now.protocol ||
      !PortMapping.hasRestarted(now.protocol, before.epoch, now.epoch)
      ? Effect.void
      : Effect.logInfo("the gateway had lost its mappings; this port is mapped again")

  /**
   * Brings the mapping in line with what is wanted. Returns how long to wait before the next check.
   */
  const reconcile = Effect.gen(function*() {
    const gateway = wanted === null ? null : yield* sources.gateway
    if (held !== null && (held.internalPort !== wanted || held.gateway !== gateway)) {
      // the old gateway cannot be reached from another network
      if (held.gateway === gateway || wanted === null) yield* release
      yield* hold(null)
    }
    if (wanted === null || gateway === null) return RETRY_MOST
    const wish: Wish = {
      gateway,
      port: sources.port,
      ssdpPort: sources.ssdpPort,
      internalPort: wanted,
      externalPort: held?.granted.external.port ?? wanted,
      nonce: held?.nonce ?? Crypto.randomBytes(Pcp.NONCE_BYTES)
    }
    const granted = yield* Effect.option(firstOf(asksFor(held?.granted.protocol), wish))
    if (Option.isNone(granted)) {
      const after = retry
      retry = Duration.min(Duration.times(retry, 2), RETRY_MOST)
      yield* hold(null)
      return after
    }
    retry = RETRY_FIRST
    yield* noteRestart(held?.granted, granted.value)
    yield* hold({ gateway, internalPort: wanted, nonce: wish.nonce, granted: granted.value })
    return Duration.millis(PortMapping.renewAfterMs(granted.value.lifetimeS))
  })
  const onAnnouncement = Effect.fnUntraced(function*(bytes: Uint8Array, from: string) {
    if (held === null || from !== held.gateway) return
    const now = yield* announced(bytes)
    const { epoch, protocol } = held.granted
    if (now === null || epoch === null || protocol === "upnp") return
    if (PortMapping.hasRestarted(protocol, epoch, now)) yield* looks.offer(undefined)
  })
  const loop = Effect.gen(function*() {
    while (true) {
      const again = yield* reconcile
      // A request that arrived during `reconcile` is served at once.
      const told = yield* Effect.timeoutOption(looks.take, again)
      if (Option.isSome(told) && held !== null && held.internalPort === wanted) yield* Effect.sleep(LOOKS_APART)
    }
  })
  // finalizers are uninterruptible, so timeouts in `release` would not work
  yield* Effect.addFinalizer(() => Effect.interruptible(release))
  yield* Effect.forkScoped(Effect.zipRight(looks.take, loop))
  yield* listen(sources.announcePort, onAnnouncement)
  const look = Effect.suspend(() => {
    retry = RETRY_FIRST
    return Effect.asVoid(looks.offer(undefined))
  })
  return PortMapper.of({
    follow: (port) => {
      if (wanted === port) return Effect.void
      wanted = port
      return look
    },
    look,
    changes: state.changes,
    probe: probe(sources)
  })
})

/** Order in which the protocols are tried: the one that worked last goes first. */
const asksFor = (protocol: PortMapping.Protocol | undefined): ReadonlyArray<Ask> =>
  ASKS.toSorted(([a], [b]) => Number(b === protocol) - Number(a === protocol)).map(([, ask]) => ask)

const firstOf = (asks: ReadonlyArray<Ask>, wish: Wish): Effect.Effect<Granted, PortMappingFailed> =>
  Effect.firstSuccessOf(asks.map((ask) =>
    ask(wish).pipe(
      Effect.filterOrElse(
        ({ external }) => Candidate.isUsableHost(external.host, false),
        ({ protocol }) =>
          new PortMappingFailed({ protocol, reason: "Refused", message: "the gateway has no external address" })
      ),
      Effect.tapError(({ message, protocol, reason }) =>
        Effect.logDebug("no port mapping").pipe(Effect.annotateLogs({ protocol, reason, why: message }))
      )
    )
  ))

const isSame = (a: Granted["external"] | undefined, b: Granted["external"] | undefined): boolean =>
  a?.host === b?.host && a?.port === b?.port

/**
 * Reads the gateway's clock from an announcement that it sent to all hosts. `null` if the message
 * is no announcement.
 */
const announced = (bytes: Uint8Array): Effect.Effect<PortMapping.Epoch | null> =>
  Effect.map(nowMs, (atMs) => {
    const serverS = Either.match(Pcp.decode(bytes), {
      onRight: (it) => it._tag === "Announce" ? it.epochS : null,
      onLeft: () =>
        Either.match(NatPmp.decode(bytes), {
          onRight: (it) => it._tag === "External" ? it.epochS : null,
          onLeft: () => null
        })
    })
    return serverS === null ? null : { serverS, atMs }
  })

/**
 * Listens for the gateway's announcements. If another program holds the port exclusively, restarts
 * are noticed only at renewals.
 */
const listen = Effect.fnUntraced(
  function*(port: number, onMessage: (bytes: Uint8Array, from: string) => Effect.Effect<void>) {
    const arrivals = yield* Mailbox.make<readonly [Uint8Array, string]>({ capacity: 16, strategy: "dropping" })
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const socket = createSocket({ type: "udp4", reuseAddr: true })
        socket.on("error", () => {})
        socket.on("message", (bytes, { address }) => void arrivals.unsafeOffer([bytes, address]))
        socket.bind(port, () => {
          try {
            socket.addMembership(NatPmp.ANNOUNCEMENTS.group)
          } catch {
            // Every host is a member of the all-hosts group already.
          }
        })
        return socket
      }),
      (socket) => Effect.sync(() => socket.removeAllListeners("message").close())
    )
    yield* Effect.forkScoped(Effect.forever(Effect.flatMap(arrivals.take, ([bytes, from]) => onMessage(bytes, from))))
  }
)

const probe = Effect.fnUntraced(function*(sources: Sources) {
  const gateway = yield* sources.gateway
  if (gateway === null) return { gateway, protocols: [], external: null }
  const place = { gateway, port: sources.port, ssdpPort: sources.ssdpPort }
  const asked = (protocol: PortMapping.Protocol, external: Effect.Effect<string | null, PortMappingFailed>) =>
    external.pipe(
      Effect.map((host) => [{ protocol, host }]),
      Effect.timeoutTo({ duration: PROBE_DEADLINE, onSuccess: (found) => found, onTimeout: () => [] }),
      Effect.catchTag("PortMappingFailed", () => Effect.succeed([]))
    )
  const found = yield* Effect.all([
    asked("pcp", Effect.as(PcpClient.speaksPcp(place), null)),
    asked("nat-pmp", PcpClient.externalHost(place)),
    asked("upnp", IgdClient.externalHost(place))
  ], { concurrency: 3 })
  const all = found.flat()
  return {
    gateway,
    protocols: all.map(({ protocol }) => protocol),
    external: all.find(({ host }) => host !== null)?.host ?? null
  }
})

const SOURCES: Sources = {
  gateway: FindGateway.find,
  port: Pcp.PORT,
  ssdpPort: 1900,
  announcePort: NatPmp.ANNOUNCEMENTS.port
}

/** Layer of the service with other `sources` than the real gateway. */
export const layerFrom = (sources: Sources): Layer.Layer<PortMapper> => Layer.scoped(PortMapper, make(sources))

export const layer: Layer.Layer<PortMapper> = layerFrom(SOURCES)

/** Layer without port mapping: no gateway is ever asked. */
export const layerOff: Layer.Layer<PortMapper> = Layer.succeed(PortMapper, {
  follow: () => Effect.void,
  look: Effect.void,
  changes: Stream.make(null),
  probe: Effect.succeed(null)
})

/** Probes the gateway in a process that keeps no mapping. */
export const probeAlone: Effect.Effect<PortMapping.Report> = probe(SOURCES)
