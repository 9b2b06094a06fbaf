/** What the commands ask of the rest of the program. Loaded only when a command needs it, so that small commands start fast. */
import { Context, type Duration, type Effect } from "effect"
import type { NetReport } from "../protocol/NatReport.ts"
import type { Config, RelayConfig } from "../services/config/Config.ts"
import type { HostPort } from "../services/config/HostPort.ts"
import type { CliError } from "./CliError.ts"

export type LogFormat = "json" | "pretty"

export type NewToken = {
  readonly role: "client" | "connector" | "relay"
  readonly name: string
  /** Null but for a connector. */
  readonly network: string | null
  readonly ttl: Duration.Duration
}

export type NodeRow = {
  readonly name: string
  readonly role: string
  readonly network: string | null
  /** Base64url. */
  readonly nodeKey: string
  /** ISO 8601, UTC. */
  readonly enrolledAt: string
}

export class Backend extends Context.Tag("sallyport/cli/Backend")<Backend, {
  /** Runs until it is interrupted, then drains. */
  readonly run: (
    config: Config,
    options: { readonly logFormat: LogFormat; readonly configFile: string }
  ) => Effect.Effect<void, CliError>
  readonly demo: Effect.Effect<void, CliError>
  /** Makes the keys of a new relay in `stateDir`; fails when there are some. */
  readonly makeRelayKeys: (stateDir: string) => Effect.Effect<void, CliError>
  /** The token's text. Works beside a running relay. */
  readonly createToken: (relay: RelayConfig, token: NewToken) => Effect.Effect<string, CliError>
  readonly listNodes: (relay: RelayConfig) => Effect.Effect<ReadonlyArray<NodeRow>, CliError>
  /** How the network here treats UDP, as that STUN server sees it. */
  readonly netcheck: (server: HostPort) => Effect.Effect<NetReport, CliError>
  /** Answers false when there is no such node. A running relay cuts its flows. */
  readonly removeNode: (relay: RelayConfig, name: string) => Effect.Effect<boolean, CliError>
}>() {}
