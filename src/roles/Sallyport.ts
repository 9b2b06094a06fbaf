/**
 * Embeds any role in another program, as an Effect Layer or with promises. An embedded client opens
 * flows with `dial`, which returns a connected socket: its reads, writes, half-close and
 * back-pressure are those of the flow.
 */
import { NodeSink, NodeStream } from "@effect/platform-node"
import {
  Cause,
  Context,
  Effect,
  ExecutionStrategy,
  Exit,
  FiberRef,
  Layer,
  Option,
  Runtime,
  Schema,
  Scope,
  type Sink,
  type Stream
} from "effect"
import { join } from "node:path"
import type { Duplex } from "node:stream"
import { FairScheduler } from "../actors/runtime/thread/FairScheduler.ts"
import { type Config, type ConfigInput, decode, load } from "../services/config/Config.ts"
import type { Settings } from "../services/telemetry/Telemetry.ts"
import * as Telemetry from "../services/telemetry/Telemetry.ts"
import * as Socks5Client from "../transport/flow/Socks5Client.ts"
import { LOCAL_DOOR_FILE } from "./Node.ts"
import * as Threads from "./RoleThreads.ts"
import { RunFailed, runFailed, start } from "./Run.ts"
import type { Peer, Running } from "./Running.ts"

/**
 * The flow was not opened. `denied`: the client has no permission, or the port is not listed.
 * `unreachable`: the name, the resource or its connector cannot be reached. `refused`: the resource
 * refused the connection. `failed`: any other cause. `not_a_client`: only clients open flows.
 */
export class DialFailed extends Schema.TaggedError<DialFailed>()("DialFailed", {
  reason: Schema.Literal("denied", "unreachable", "refused", "failed", "not_a_client"),
  resource: Schema.String,
  port: Schema.Int,
  message: Schema.String
}) {}

/** The flow broke after it was open: the peer, the resource or the permission ended it. */
export class FlowBroken extends Schema.TaggedError<FlowBroken>()("FlowBroken", { message: Schema.String }) {}

/** Both directions of a flow. The end of the sink half-closes the flow. */
export interface Flow {
  readonly stream: Stream.Stream<Uint8Array, FlowBroken>
  readonly sink: Sink.Sink<void, Uint8Array, never, FlowBroken>
}

/** A running role, for programs with Effect. */
export interface Service {
  readonly role: Config["role"]
  readonly name: string
  /** Names and addresses of the listeners. */
  readonly listen: Readonly<Record<string, string>>
  readonly peers: Effect.Effect<ReadonlyArray<Peer>, RunFailed>
  /**
   * Opens a flow; for clients only. `resource` is the name or an address of a resource. The socket
   * is destroyed when the scope closes.
   */
  readonly dial: (resource: string, port: number) => Effect.Effect<Duplex, DialFailed, Scope.Scope>
  /** Opens a flow as a stream and a sink; for clients only. */
  readonly open: (resource: string, port: number) => Effect.Effect<Flow, DialFailed, Scope.Scope>
  /** Applies the keys that may change while running, such as resources, access and forwards. */
  readonly reload: (config: ConfigInput) => Effect.Effect<void, RunFailed>
}

/** Options for embedding a role. */
export interface Options {
  /**
   * Folder that relative paths in a configuration object start from. Default: the working
   * directory.
   */
  readonly baseDir?: string
  /**
   * Format of the worker threads' logs, which go to stderr. Default: `json`. The main thread logs
   * as the embedding program does.
   */
  readonly logFormat?: Settings["format"]
  /**
   * Whether a relay is created if its state directory holds none. Default: `false`, because a state
   * that is lost or not mounted looks the same, and nodes refuse a relay with other keys.
   */
  readonly newIdentity?: boolean
}

/**
 * Longest time for a dial, in milliseconds: the local handshake, the dial through the relay and the
 * resource's own answer.
 */
const DIAL_DEADLINE_MS = 30_000

/** Path of a YAML file, or the configuration as an object. */
export type Source = string | ConfigInput

const make = (source: Source, options: Options = {}) =>
  Effect.gen(function*() {
    const baseDir = options.baseDir ?? process.cwd()
    const config = yield* (typeof source === "string" ? load(source) : decode(source, { baseDir }))
    const telemetry = Threads.telemetryOf(config, options.logFormat ?? "json")
    const running = yield* start(config, telemetry, {
      localDoor: true,
      newIdentity: options.newIdentity ?? false
    })
    yield* Telemetry.exportMetrics(telemetry, running.supervisor.metrics)
    return service(config, running, baseDir)
  }).pipe(Effect.mapError(runFailed))

const service = (config: Config, running: Running, baseDir: string): Service => {
  const failed = ({ message }: { readonly message: string }) => new RunFailed({ message })
  const dial = (resource: string, port: number) =>
    config.role !== "client"
      ? Effect.fail(
        new DialFailed({
          reason: "not_a_client",
          resource,
          port,
          message: `a ${config.role} opens no flows; embed a client`
        })
      )
      : Effect.acquireRelease(
        Effect.tryPromise({
          try: () =>
            Socks5Client.open({
              listener: { path: join(config.stateDir, LOCAL_DOOR_FILE) },
              host: resource,
              port,
              deadlineMs: DIAL_DEADLINE_MS
            }),
          catch: (cause) => dialFailed(resource, port, cause)
        }),
        (socket) => Effect.sync(() => socket.destroy())
      )
  return {
    role: config.role,
    name: config.name,
    listen: running.listen,
    peers: Effect.mapBoth(running.status, { onFailure: failed, onSuccess: ({ peers }) => peers }),
    dial,
    open: (resource, port) => Effect.map(dial(resource, port), flowOf),
    reload: (next) => Effect.mapError(Effect.flatMap(decode(next, { baseDir }), running.reload), failed)
  }
}

const flowOf = (socket: Duplex): Flow => {
  const broken = (cause: unknown) => new FlowBroken({ message: cause instanceof Error ? cause.message : String(cause) })
  return {
    stream: NodeStream.fromReadable<FlowBroken>(() => socket, broken, { closeOnDone: false }),
    sink: NodeSink.fromWritable(() => socket, broken, { endOnDone: true })
  }
}

/** Errors by the reply code of SOCKS5 (RFC 1928, section 6). */
const REASONS: Readonly<Record<number, readonly [DialFailed["reason"], string]>> = {
  1: ["failed", "too many flows are open here or at the connector, or a node failed; close some, or see the logs"],
  2: ["denied", "this client may not reach it, or the port is not listed; ask the relay's administrator"],
  4: ["unreachable", "the name is unknown, or the resource or its connector cannot be reached; see the status"],
  5: ["refused", "the resource refused the connection; is its service running?"]
}

const dialFailed = (resource: string, port: number, cause: unknown): DialFailed => {
  const reply = cause instanceof Socks5Client.Socks5Refused ? cause.reply : 0
  const [reason, message] = REASONS[reply] ?? ["failed", cause instanceof Error ? cause.message : String(cause)]
  return new DialFailed({ reason, resource, port, message: `${resource}:${port}: ${message}` })
}

/**
 * Runtime that does not warn about another version of `effect`. The embedding program may bring
 * one, and both share what `effect` keeps in `globalThis`, such as the default clock. Nothing here
 * depends on the version of that.
 */
const besideOthers = Runtime.defaultRuntime.pipe(
  Runtime.setFiberRef(FiberRef.versionMismatchErrorLogLevel, Option.none()),
  Runtime.setFiberRef(FiberRef.currentScheduler, new FairScheduler())
)

/** A running role, for programs without Effect. */
export interface Handle {
  readonly listen: Readonly<Record<string, string>>
  readonly peers: () => Promise<ReadonlyArray<Peer>>
  /** Opens a flow as a socket that the caller must end or destroy. Rejects with `DialFailed`. */
  readonly dial: (resource: string, port: number) => Promise<Duplex>
  /** Stops flows, listeners and threads. Resolves when all have stopped. */
  readonly stop: () => Promise<void>
}

/** Service tag of an embedded role, with its two constructors: `layer` and `start`. */
export class Sallyport extends Context.Tag("sallyport/Sallyport")<Sallyport, Service>() {
  /** Layer that runs the configured role while it lives. It is built when the role is ready. */
  static readonly layer = (source: Source, options?: Options): Layer.Layer<Sallyport, RunFailed> =>
    Layer.scoped(Sallyport, make(source, options))

  /** Starts the configured role, for programs without Effect. Rejects with `RunFailed`. */
  static readonly start = async (source: Source, options: Options = {}): Promise<Handle> => {
    const scope = Effect.runSync(Scope.make())
    const settings: Settings = { ...Telemetry.DEFAULT, format: options.logFormat ?? "json", level: "Warning" }
    const building = Scope.extend(Layer.toRuntime(Telemetry.layer(settings, "main")), scope)
    const runtime = await Runtime.runPromise(besideOthers)(building)
    const run = <A, E>(effect: Effect.Effect<A, E>) =>
      Runtime.runPromiseExit(runtime)(effect).then(Exit.match({
        onFailure: (cause) => {
          throw Cause.squash(cause)
        },
        onSuccess: (value) => value
      }))
    const stop = () => Runtime.runPromise(besideOthers)(Scope.close(scope, Exit.void))
    try {
      const { dial, listen, peers } = await run(Scope.extend(make(source, options), scope))
      // The caller owns the socket; `stop` destroys sockets that are still open.
      const open = async (resource: string, port: number) => {
        const own = await run(Scope.fork(scope, ExecutionStrategy.sequential))
        const release = () => void Runtime.runFork(besideOthers)(Scope.close(own, Exit.void))
        return run(Effect.onError(Scope.extend(dial(resource, port), own), () => Effect.sync(release))).then((socket) =>
          socket.once("close", release)
        )
      }
      return { listen, stop, peers: () => run(peers), dial: open }
    } catch (error) {
      await stop()
      throw error
    }
  }
}
