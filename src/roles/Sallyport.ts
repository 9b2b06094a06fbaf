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
import * as StateDirLock from "../services/host/StateDirLock.ts"
import type { Settings } from "../services/telemetry/Telemetry.ts"
import * as Telemetry from "../services/telemetry/Telemetry.ts"
import * as LocalFlow from "../transport/flow/LocalFlow.ts"
import * as Socks5Client from "../transport/flow/Socks5Client.ts"
import { LOCAL_DOOR_FILE } from "./Node.ts"
import * as Threads from "./RoleThreads.ts"
import { RunFailed, runFailed, start } from "./Run.ts"
import type { Peer, Running } from "./Running.ts"

/**
 * Error when a flow was not opened. `message` says what happened and what to do. `reason` is one
 * of:
 * - `denied`: the client has no permission, or the resource does not list the port.
 * - `unreachable`: the name is unknown, or the resource or its connector cannot be reached.
 * - `refused`: the resource refused the connection.
 * - `failed`: any other cause, such as too many open flows.
 * - `not_a_client`: this role opens no flows; embed a client.
 */
export class DialFailed extends Schema.TaggedError<DialFailed>()("DialFailed", {
  /** Kind of failure, for programs. {@link DialFailed} lists them. */
  reason: Schema.Literal("denied", "unreachable", "refused", "failed", "not_a_client"),
  /** The resource's name or address, as it was passed to `dial` or `open`. */
  resource: Schema.String,
  /** The TCP port, as it was passed to `dial` or `open`. */
  port: Schema.Int,
  /** Text for people: what happened and what to do. */
  message: Schema.String
}) {}

/**
 * Error when an open flow broke: the peer or the resource reset it, the permission ended, or the
 * path to the peer was lost. `message` is the socket's error, such as `read ECONNRESET` or `write
 * EPIPE`. Open another flow to go on.
 */
export class FlowBroken extends Schema.TaggedError<FlowBroken>()("FlowBroken", { message: Schema.String }) {}

/** Both directions of one TCP connection to a resource. */
export interface Flow {
  /** Bytes from the resource. Ends when the resource has closed its direction. */
  readonly stream: Stream.Stream<Uint8Array, FlowBroken>
  /** Bytes to the resource. The end of the sink half-closes the flow; `stream` stays open. */
  readonly sink: Sink.Sink<void, Uint8Array, never, FlowBroken>
}

/** A running role, for programs with Effect. It stops when the scope of its layer closes. */
export interface Service {
  /** The role. `forwarder` is a relay that has joined another one (configuration key `join`). */
  readonly role: Config["role"]
  /** Name of this process, as its configuration says. */
  readonly name: string
  /**
   * Addresses of the listeners by name, as `host:port` with the actual port. The names are
   * `socks5`, `forward1`, `forward2` and so on for a node, and `https`, `http3` and `udp` for a
   * relay.
   */
  readonly listen: Readonly<Record<string, string>>
  /** The peers with an open session. Fails with {@link RunFailed} if the threads do not answer. */
  readonly peers: Effect.Effect<ReadonlyArray<Peer>, RunFailed>
  /**
   * Opens a flow as a socket. Only a client opens flows. `resource` is a resource's name, or an
   * address that a resource covers, of at most 255 bytes; `port` is a TCP port. Succeeds when the
   * resource has accepted the connection, and fails with {@link DialFailed}, after 30 s at the
   * latest. The socket is destroyed when the scope closes.
   */
  readonly dial: (resource: string, port: number) => Effect.Effect<Duplex, DialFailed, Scope.Scope>
  /** Opens a flow as a stream and a sink. Everything else is as for `dial`. */
  readonly open: (resource: string, port: number) => Effect.Effect<Flow, DialFailed, Scope.Scope>
  /**
   * Takes a new configuration and applies the keys that may change while the role runs, such as
   * `resources`, `access` and `forwards`. Other keys wait for the next start. Fails with {@link
   * RunFailed} if the configuration is invalid or cannot be applied; then nothing has changed.
   */
  readonly reload: (config: ConfigInput) => Effect.Effect<void, RunFailed>
}

/** Options for embedding a role. */
export interface Options {
  /**
   * Folder from which relative paths in a configuration object start. Default: the working
   * directory. Paths in a YAML file start at the file's own folder.
   */
  readonly baseDir?: string
  /**
   * Format of the worker threads' logs, which go to stderr. Default: `json`. The main thread logs
   * as the embedding program does.
   */
  readonly logFormat?: Settings["format"]
  /**
   * Whether to create a new relay if `stateDir` holds none. Default: `false`. A state directory
   * that is lost or not mounted looks empty too, and nodes refuse a relay with new keys.
   */
  readonly newIdentity?: boolean
}

/**
 * Longest time for a dial, in milliseconds: the local handshake, the dial through the relay and the
 * resource's own answer.
 */
const DIAL_DEADLINE_MS = 30_000

/** The configuration: the path of a YAML file, or an object with the same keys. */
export type Source = string | ConfigInput

const make = (source: Source, options: Options = {}) =>
  Effect.gen(function*() {
    const baseDir = options.baseDir ?? process.cwd()
    const config = yield* (typeof source === "string" ? load(source) : decode(source, { baseDir }))
    yield* StateDirLock.hold(config.stateDir)
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
            }).then(LocalFlow.atProgram),
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
  socket.on("error", () => {}) // the flow may break while neither part is in use
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

/** A running role, for programs without Effect. It runs until `stop` is called. */
export interface Handle {
  /**
   * Addresses of the listeners by name, as `host:port` with the actual port. The names are
   * `socks5`, `forward1`, `forward2` and so on for a node, and `https`, `http3` and `udp` for a
   * relay.
   */
  readonly listen: Readonly<Record<string, string>>
  /**
   * Lists the peers with an open session. Rejects with {@link RunFailed} if the threads do not
   * answer.
   */
  readonly peers: () => Promise<ReadonlyArray<Peer>>
  /**
   * Opens a flow as a socket that the caller must end or destroy. Only a client opens flows.
   * `resource` is a resource's name, or an address that a resource covers, of at most 255 bytes;
   * `port` is a TCP port. Resolves when the resource has accepted the connection. Rejects with
   * {@link DialFailed}, after 30 s at the latest. When an open flow breaks, the socket emits
   * `error`, to a reader with the code `ECONNRESET`. An end is always the resource's own.
   */
  readonly dial: (resource: string, port: number) => Promise<Duplex>
  /**
   * Resets open flows, closes the listeners and ends the threads. Resolves when all have ended. A
   * second call does nothing.
   */
  readonly stop: () => Promise<void>
}

/**
 * Service tag of an embedded role. Start a role with `Sallyport.layer` (Effect) or
 * `Sallyport.start` (promises).
 */
export class Sallyport extends Context.Tag("sallyport/Sallyport")<Sallyport, Service>() {
  /**
   * Returns a layer that runs the configured role. The layer is built when the role is ready: a
   * relay listens, and a node has enrolled and its listeners are open. The role stops when the
   * layer's scope closes. Fails with {@link RunFailed}, for example if another role uses the state
   * directory.
   */
  static readonly layer = (source: Source, options?: Options): Layer.Layer<Sallyport, RunFailed> =>
    Layer.scoped(Sallyport, make(source, options))

  /**
   * Starts the configured role, for programs without Effect. Resolves when the role is ready: a
   * relay listens, and a node has enrolled and its listeners are open. Rejects with {@link
   * RunFailed}, for example if another role uses the state directory.
   */
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
