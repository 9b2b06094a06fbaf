/**
 * Keeps one local UDP port mapped at the default gateway, so that peers reach it whatever the translator does with the rest: by PCP,
 * NAT-PMP or UPnP, the first that answers. One loop compares what is wanted with what is held: when told, at half of the lifetime, and
 * when the gateway says that it started anew. IPv4 only.
 */
import { Context, Duration, Effect, Either, Layer, Mailbox, Option, Stream, SubscriptionRef } from "effect"
import { createSocket } from "node:dgram"
import * as Candidate from "../protocol/Candidate.ts"
import * as NatPmp from "../protocol/NatPmp.ts"
import * as Pcp from "../protocol/Pcp.ts"
import * as PortMapping from "../protocol/PortMapping.ts"
import * as Crypto from "./Crypto.ts"
import { type Ask, type Granted, PortMappingFailed, type Wish } from "./portmap/Asking.ts"
import * as FindGateway from "./portmap/Gateway.ts"
import * as GatewayUdp from "./portmap/GatewayUdp.ts"
import * as IgdClient from "./portmap/IgdClient.ts"
import * as PcpClient from "./portmap/PcpClient.ts"

export class PortMapper extends Context.Tag("sallyport/services/PortMapper")<PortMapper, {
  /** The local port to keep mapped from now on; null: none. Returns at once. */
  readonly follow: (port: number | null) => Effect.Effect<void>
  /** The network changed: looks at once whether the gateway and the mapping are as they were. Returns at once. */
  readonly look: Effect.Effect<void>
  /** What is held now, and each change; null: nothing. The external address may be a private one, of a second translator's inside. */
  readonly changes: Stream.Stream<PortMapping.PortMapping | null>
  /** What the gateway can do; changes nothing there. Takes at most 1.5 s. Null: switched off. */
  readonly probe: Effect.Effect<PortMapping.Report | null>
}>() {}

const PROBE_DEADLINE = Duration.millis(1400)
/** Nothing was granted: a router that is starting, or one that has none of this, which a question now and then does not disturb. */
const RETRY_FIRST = Duration.seconds(15)
const RETRY_MOST = Duration.minutes(15)
/** Of giving back a mapping, when it is wanted no longer. */
const RELEASE_DEADLINE = Duration.millis(500)
/** A restarted gateway says so ten times; and nobody on the link can make us ask more often. */
const LOOKS_APART = Duration.seconds(1)

export interface Sources {
  readonly gateway: Effect.Effect<string | null>
  readonly port: number
  readonly ssdpPort: number
  /** Where gateways say that they started anew. */
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
      : Effect.logInfo("the gateway had lost its mappings, and has this one again")

  /** Makes what is held be what is wanted; answers with when to look again. */
  const reconcile = Effect.gen(function*() {
    const gateway = wanted === null ? null : yield* sources.gateway
    if (held !== null && (held.internalPort !== wanted || held.gateway !== gateway)) {
      if (held.gateway === gateway || wanted === null) yield* release // elsewhere nobody would hear it
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
      // What was asked for meanwhile is looked at now.
      const told = yield* Effect.timeoutOption(looks.take, again)
      if (Option.isSome(told) && held !== null && held.internalPort === wanted) yield* Effect.sleep(LOOKS_APART)
    }
  })
  yield* Effect.addFinalizer(() => Effect.interruptible(release)) // else its deadlines would not hold
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

/** What worked goes first. */
const asksFor = (protocol: PortMapping.Protocol | undefined): ReadonlyArray<Ask> =>
  ASKS.toSorted(([a], [b]) => Number(b === protocol) - Number(a === protocol)).map(([, ask]) => ask)

const firstOf = (asks: ReadonlyArray<Ask>, wish: Wish): Effect.Effect<Granted, PortMappingFailed> =>
  Effect.firstSuccessOf(asks.map((ask) =>
    ask(wish).pipe(
      Effect.filterOrElse(
        ({ external }) => Candidate.isUsableHost(external.host, false),
        ({ protocol }) =>
          new PortMappingFailed({ protocol, reason: "Refused", message: "the gateway has no address outside" })
      ),
      Effect.tapError(({ message, protocol, reason }) =>
        Effect.logDebug("no port mapping").pipe(Effect.annotateLogs({ protocol, reason, why: message }))
      )
    )
  ))

const isSame = (a: Granted["external"] | undefined, b: Granted["external"] | undefined): boolean =>
  a?.host === b?.host && a?.port === b?.port

/** The gateway's clock, of what it says to everybody. */
const announced = (bytes: Uint8Array): Effect.Effect<PortMapping.Epoch | null> =>
  Effect.map(GatewayUdp.nowMs, (atMs) => {
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

/** Where another program holds the port for itself alone, restarts are seen at renewals only. */
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
            // All hosts are members already.
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

export const layerFrom = (sources: Sources): Layer.Layer<PortMapper> => Layer.scoped(PortMapper, make(sources))

export const layer: Layer.Layer<PortMapper> = layerFrom(SOURCES)

/** Switched off: nothing is asked of any gateway. */
export const layerOff: Layer.Layer<PortMapper> = Layer.succeed(PortMapper, {
  follow: () => Effect.void,
  look: Effect.void,
  changes: Stream.make(null),
  probe: Effect.succeed(null)
})

/** The check alone, for a process that keeps no mapping. */
export const probeAlone: Effect.Effect<PortMapping.Report> = probe(SOURCES)
