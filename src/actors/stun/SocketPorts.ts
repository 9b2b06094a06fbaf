/**
 * The ports of the data plane's sockets: reads them, has the IPv4 port mapped at the gateway if
 * that is wanted, and tries the configured port again while another program uses it.
 */
import { Duration, Effect } from "effect"
import type * as CandidateGathering from "../../protocol/nat/CandidateGathering.ts"
import type { ActorUnavailable } from "../runtime/actor/ActorRef.ts"

/** How often the configured UDP port is tried again while another program uses it. */
const PORT_RETRY = Duration.seconds(30)

/** The data plane's sockets. */
export interface Sockets {
  readonly localPorts: Effect.Effect<
    CandidateGathering.Ports & { readonly missed?: ReadonlyArray<unknown> | undefined },
    ActorUnavailable
  >
  /** Takes the configured port, if it is free now. */
  readonly takeConfigured: Effect.Effect<boolean, ActorUnavailable>
}

/** Options of {@link make}. */
export interface Options {
  readonly sockets: Sockets
  /** Has this port mapped at the gateway, or none. */
  readonly follow: (port: number | null) => Effect.Effect<void>
  /** Whether the UDP port is to be mapped at first. */
  readonly isMapped: boolean
  /** Runs an effect in a fiber of its own, which ends with the actor. */
  readonly fork: (effect: Effect.Effect<void>) => Effect.Effect<unknown>
  /** Takes the ports that `read` has found. `missed`: another program uses the configured port. */
  readonly onRead: (ports: CandidateGathering.Ports, missed: boolean) => Effect.Effect<unknown>
  /** The configured port was free and is in use now. */
  readonly onTaken: Effect.Effect<unknown>
  /** Has `retry` called after the delay. */
  readonly retryAfter: (delay: Duration.Duration) => Effect.Effect<void>
}

/** Makes the follower, which knows no port yet. */
export const make = ({ follow, fork, onRead, onTaken, retryAfter, sockets, ...options }: Options) => {
  let { isMapped } = options
  /** Port of the IPv4 socket. `null` if there is none, or it is not known yet. */
  let port: number | null = null

  const readNow = sockets.localPorts.pipe(
    Effect.flatMap(({ missed = [], ...ports }) => onRead(ports, missed.length > 0)),
    Effect.catchTag("ActorUnavailable", (error) => Effect.logDebug("the ports of the data plane are not known", error)),
    Effect.asVoid
  )
  const mapOrNot = Effect.suspend(() => follow(isMapped ? port : null))

  return {
    /** Reads the ports, without waiting. */
    read: Effect.asVoid(fork(readNow)),
    /** Uses the ports that were read. */
    onPorts: (ports: CandidateGathering.Ports, missed: boolean) =>
      Effect.suspend(() => {
        port = ports.v4 ?? null
        return Effect.zipRight(mapOrNot, missed ? retryAfter(PORT_RETRY) : Effect.void)
      }),
    /** Says whether the port is to be mapped from now on. */
    onWanted: (wanted: boolean) =>
      Effect.suspend(() => {
        isMapped = wanted
        return mapOrNot
      }),
    /** Tries the configured port again, without waiting. */
    retry: sockets.takeConfigured.pipe(
      Effect.catchTag("ActorUnavailable", () => Effect.succeed(false)),
      Effect.flatMap((taken) => (taken ? onTaken : readNow)),
      Effect.asVoid,
      fork,
      Effect.asVoid
    )
  } as const
}
