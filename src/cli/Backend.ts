/**
 * Operations that commands need from the rest of the program. The implementation is loaded only
 * when a command needs it, so that small commands start fast.
 */
import { Context, type Duration, type Effect } from "effect"
import type { NetReport } from "../protocol/nat/NatReport.ts"
import type { Config, RelayConfig } from "../services/config/Config.ts"
import type { HostPort } from "../services/config/HostPort.ts"
import type { CliError } from "./CliError.ts"

export type LogFormat = "json" | "pretty"

/** The node that an enrolment token is for, and how long the token is valid. */
export type NewToken = {
  readonly role: "client" | "connector" | "relay"
  readonly name: string
  /** The connector's network. `null` for the other roles. */
  readonly network: string | null
  readonly ttl: Duration.Duration
}

/** An enrolled node. */
export type NodeRow = {
  readonly name: string
  readonly role: string
  readonly network: string | null
  /** The node's public key, base64url. */
  readonly nodeKey: string
  /** When the node enrolled: ISO 8601, UTC. */
  readonly enrolledAt: string
}

/** Operations of the program that commands use. See `BackendLive` for the real ones. */
export class Backend extends Context.Tag("sallyport/cli/Backend")<Backend, {
  /** Runs a role until it is interrupted, then stops it in order. */
  readonly run: (
    config: Config,
    options: { readonly logFormat: LogFormat; readonly configFile: string; readonly newIdentity: boolean }
  ) => Effect.Effect<void, CliError>
  readonly demo: Effect.Effect<void, CliError>
  /** Makes the keys of a new relay in `stateDir`. Fails if there are keys already. */
  readonly makeRelayKeys: (stateDir: string) => Effect.Effect<void, CliError>
  /** Creates an enrolment token and returns its text. It works while the relay is running, too. */
  readonly createToken: (relay: RelayConfig, token: NewToken) => Effect.Effect<string, CliError>
  readonly listNodes: (relay: RelayConfig) => Effect.Effect<ReadonlyArray<NodeRow>, CliError>
  /** Checks from this process how the network treats UDP, as the STUN server `server` sees it. */
  readonly netcheck: (server: HostPort) => Effect.Effect<NetReport, CliError>
  /**
   * Removes a node; a running relay then ends its flows. Returns `false` if there is no such node.
   */
  readonly removeNode: (relay: RelayConfig, name: string) => Effect.Effect<boolean, CliError>
}>() {}
