/** Runs one process of one role from its configuration to its end, for `sallyport run`. */
import {
  Console,
  Deferred,
  Effect,
  Either,
  ExecutionStrategy,
  Exit,
  Fiber,
  FiberSet,
  Option,
  Schedule,
  Schema,
  Scope,
  Stream
} from "effect"
import { HubError, MAX_NODES, Wanted } from "../actors/hub/SignalingHubRpcs.ts"
import type { NetReport } from "../protocol/nat/NatReport.ts"
import { AdminError } from "../services/admin/AdminError.ts"
import * as AdminServer from "../services/admin/AdminServer.ts"
import type { AdminListenError } from "../services/admin/AdminSocket.ts"
import * as InspectorFiles from "../services/admin/InspectorFiles.ts"
import { type AdminEndpoint, type Config, load } from "../services/config/Config.ts"
import * as HostPort from "../services/config/HostPort.ts"
import * as Reload from "../services/config/Reload.ts"
import * as Descriptors from "../services/host/Descriptors.ts"
import * as StateDir from "../services/host/StateDir.ts"
import * as StateDirLock from "../services/host/StateDirLock.ts"
import * as OpenMetrics from "../services/telemetry/OpenMetrics.ts"
import { Recorder } from "../services/telemetry/Recorder.ts"
import * as Telemetry from "../services/telemetry/Telemetry.ts"
import * as Traces from "../services/telemetry/Traces.ts"
import { nowMs } from "../session/MonotonicClock.ts"
import * as ServiceManager from "../transport/ServiceManager.ts"
import type * as Enrol from "./Enrol.ts"
import * as Forwarder from "./Forwarder.ts"
import * as Netcheck from "./Netcheck.ts"
import * as Node from "./Node.ts"
import * as Relay from "./Relay.ts"
import * as Threads from "./RoleThreads.ts"
import type { Running } from "./Running.ts"

/** Error when a role could not start, had to end, or did not answer. */
export class RunFailed extends Schema.TaggedError<RunFailed>()("RunFailed", {
  /** Text for the operator: what happened and what to do. */
  message: Schema.String,
  /**
   * Whether another attempt may succeed before the operator has changed something. Default: `true`.
   */
  again: Schema.optionalWith(Schema.Boolean, { default: () => true })
}) {}

/** Options of {@link run}. */
export interface Options extends Relay.Options {
  readonly logFormat: "json" | "pretty"
  readonly configFile: string
  /** Called when the process begins to stop, with the most seconds that this may take. */
  readonly onStopping: (seconds: number) => Effect.Effect<void>
}

/** Body of `POST /v1/drain`. */
const WantedDrain = Schema.Struct({ drain: Schema.Boolean })

/** Longest time that a stop may take besides the wait for open flows. */
const STOP_SECONDS = 20
/** How long a connector that stops waits at least, so that its clients hear of it. */
const HEARD_MS = 500
/** How often open flows are counted while a connector drains. */
const COUNT_EVERY = "200 millis"

/** Starts a role. When the scope closes it stops in order: listeners, sessions, links, threads. */
export const start = (config: Config, telemetry: Telemetry.Settings, options: Node.Options & Relay.Options) =>
  config.role === "relay"
    ? Relay.start(config, telemetry, options)
    : config.role === "forwarder"
    ? Forwarder.start(config, telemetry, options)
    : Node.start(config, telemetry, options)

/** Runs a role until it is interrupted. Fails if it cannot start, or if an actor keeps dying. */
export const run = (config: Config, options: Options): Effect.Effect<never, RunFailed> => {
  const telemetry = Threads.telemetryOf(config, options.logFormat)
  return Effect.gen(function*() {
    const started = yield* Deferred.make<Running>()
    const scope = yield* Effect.scope
    const recorder = new Recorder()
    const manager = ServiceManager.make(process.env)
    const phase: Phase = {
      config,
      started,
      waiting: null,
      restartNeeded: [],
      stateDir: null,
      reloadProblem: null,
      isStopping: false
    }
    yield* StateDirLock.hold(config.stateDir)
    const admin = yield* movable(routes(phase, recorder))
    yield* openAdmin(admin, config)
    const reloader = reload({ file: options.configFile, phase, admin, first: config })
    yield* onHangUp(
      Effect.flatMap(
        Deferred.await(started),
        (running) =>
          Effect.ensuring(Effect.zipRight(manager.reloading, reloader(running)), manager.ready).pipe(
            Effect.uninterruptible,
            repeatReload
          )
      )
    )
    const running = yield* start(config, telemetry, {
      localDoor: false,
      newIdentity: options.newIdentity ?? false,
      onStarted: (running) =>
        Effect.zipRight(Deferred.succeed(started, running), Effect.forkIn(record(running, recorder), scope)),
      onWaiting: (waiting) =>
        Effect.sync(() => {
          phase.waiting = waiting
        })
    })
    if (yield* Deferred.succeed(started, running)) yield* Effect.forkScoped(record(running, recorder))
    yield* Telemetry.exportMetrics(telemetry, running.supervisor.metrics)
    const { name, role } = config
    const ready = JSON.stringify({ event: "ready", role, name, listen: running.listen })
    yield* options.logFormat === "json" ? Console.log(ready) : Effect.logInfo(`ready ${JSON.stringify(running.listen)}`)
    const stopping = Effect.suspend(() => {
      phase.isStopping = true
      const drainSeconds = phase.config.role === "connector" ? phase.config.drainTimeout : 0
      const stopSeconds = drainSeconds + STOP_SECONDS
      return manager.stopping(stopSeconds).pipe(
        Effect.zipRight(options.onStopping(stopSeconds)),
        Effect.zipRight(drain(running, drainSeconds))
      )
    })
    yield* manager.watch(Effect.map(running.supervisor.lost, (lost) => lost.length === 0))
    yield* manager.ready
    phase.stateDir = yield* StateDir.identify(config.stateDir)
    yield* Effect.forkScoped(StateDir.watch(config.stateDir, phase.stateDir, onStateDir(config)))
    // A finalizer of this scope would be too late: connections to actors that were restarted since
    // belong to the scope too, and close first.
    return yield* Effect.onExit(running.supervisor.awaitGiveUp, () => stopping)
  }).pipe(
    Effect.scoped,
    Effect.mapError(runFailed),
    Effect.provide(Telemetry.layer(telemetry, "main"))
  )
}

/**
 * Takes no new flows and waits until the open ones have ended, at most `seconds`. Flows that are
 * open afterwards are cut.
 */
export const drain = (running: Pick<Running, "drain">, seconds: number): Effect.Effect<void> => {
  if (running.drain === null || seconds === 0) return Effect.void
  const ask = running.drain.set(true)
  return Effect.gen(function*() {
    const first = yield* ask
    if (first.sessions === 0) return
    if (first.flows > 0) {
      yield* Effect.logInfo(`stopping: takes no new flows and waits up to ${seconds} s for open flows (${first.flows})`)
    }
    const begun = yield* nowMs
    let { flows } = first
    let waited = 0
    while (waited < HEARD_MS || (flows > 0 && waited < seconds * 1000)) {
      yield* Effect.sleep(COUNT_EVERY)
      flows = (yield* ask).flows
      waited = (yield* nowMs) - begun
    }
    if (flows > 0) {
      yield* Effect.logWarning(`open flows are cut (${flows}), because drainTimeout (${seconds} s) is over`)
    }
  }).pipe(Effect.catchAll(({ message }) => Effect.logWarning(`open flows are not waited for: ${message}`)))
}

/** How far the start of the process has come. */
interface Phase {
  /** The configuration that is in force. */
  config: Config
  readonly started: Deferred.Deferred<Running>
  /** Why the node has not enrolled yet. `null` if no attempt has failed so far. */
  waiting: Enrol.Waiting | null
  /** Keys whose new values take effect only after a restart. */
  restartNeeded: ReadonlyArray<string>
  /** Identity of the directory that `stateDir` names. `null` until it has been seen. */
  stateDir: StateDir.Identity | null
  /** Why the last reload failed. `null` if it did not. */
  reloadProblem: string | null
  /** Whether the process has been asked to end. */
  isStopping: boolean
}

/** Turns any error of a start into a `RunFailed`. */
export const runFailed = (error: { readonly message: string; readonly _tag?: string; readonly reason?: unknown }) =>
  new RunFailed({ message: error.message, again: !needsOperator(error) })

/**
 * Whether a start must not be tried again and again: the configuration is wrong, the state
 * directory is damaged, or an identity is lost.
 */
const needsOperator = (error: { readonly _tag?: string; readonly reason?: unknown }): boolean =>
  error._tag === "ConfigError" || (OPERATORS[error._tag ?? ""]?.includes(String(error.reason)) ?? false)

const OPERATORS: Readonly<Record<string, ReadonlyArray<string>>> = {
  RelayKeysError: ["exists", "absent", "incomplete"],
  KeyFileError: ["missing", "damaged"],
  EnrolmentError: ["damaged"],
  DirectoryError: ["damaged"]
}

const onStateDir = ({ role, stateDir }: Config) => (now: StateDir.Trouble | null) => {
  if (now === null) return Effect.logInfo("the state directory can be written again")
  const effect = role === "relay" ? "no node, token or rule can be changed until then" : "nothing is saved until then"
  return Effect.logWarning(`the state directory cannot be written: ${now.message}. Flows go on; ${effect}`).pipe(
    Effect.annotateLogs({ stateDir })
  )
}

/** How often the admin socket is tried again while its folder cannot be written. */
const ADMIN_AGAIN = "5 seconds"
/** Delay before a reload is repeated that failed because the directory could not be written. */
const RELOAD_AGAIN = "5 seconds"

/** Repeats the reload for as long as it says that it may succeed later. */
export const repeatReload = <A extends { readonly again: boolean }, E, R>(reload: Effect.Effect<A, E, R>) =>
  Effect.repeat(reload, { while: ({ again }) => Effect.as(Effect.sleep(RELOAD_AGAIN), again) })

/**
 * Opens the admin API. While the disk of its socket is full or read-only, the process goes without
 * the API, and tries to open it again.
 */
export const openAdmin = (
  admin: { readonly move: (to: AdminEndpoint) => Effect.Effect<void, AdminListenError> },
  config: Pick<Config, "admin">
) =>
  Effect.catchIf(
    admin.move(config.admin),
    ({ reason }) => reason === "Unwritable",
    ({ message }) =>
      Effect.logWarning(`status and doctor do not work now: ${message}; sallyport tries again by itself`).pipe(
        Effect.zipRight(Effect.sleep(ADMIN_AGAIN)),
        Effect.zipRight(
          Effect.retry(admin.move(config.admin), {
            schedule: Schedule.spaced(ADMIN_AGAIN),
            while: ({ reason }) => reason === "Unwritable"
          })
        ),
        Effect.zipRight(Effect.logInfo("the admin API is open")),
        Effect.catchAll(({ message }) => Effect.logError(message)),
        Effect.forkScoped,
        Effect.asVoid
      )
  )

/**
 * Serves the admin API at an address that may change. If the server cannot listen at a new address,
 * it returns to the old one.
 */
const movable = Effect.fnUntraced(function*(served: AdminServer.Routes) {
  const parent = yield* Effect.scope
  let open: { readonly scope: Scope.CloseableScope; readonly at: AdminEndpoint } | null = null
  const listen = (at: AdminEndpoint) =>
    Effect.gen(function*() {
      const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
      yield* Effect.onError(
        Scope.extend(AdminServer.make({ listen: at, routes: served }), scope),
        () => Scope.close(scope, Exit.void)
      )
      open = { scope, at }
    })
  const move = (to: AdminEndpoint) =>
    Effect.gen(function*() {
      const before = open
      // The old server closes first, because the new address may be the old one with other rights.
      if (before !== null) yield* Scope.close(before.scope, Exit.void)
      yield* Effect.tapError(listen(to), () => before === null ? Effect.void : Effect.ignore(listen(before.at)))
    })
  return { move }
})

/**
 * Records state changes and path decisions. Ends only when the supervisor gives the prober up,
 * which the supervisor reports itself.
 */
const record = ({ decisions, supervisor }: Running, recorder: Recorder) =>
  Effect.all([
    Stream.runForEach(supervisor.events, (event) => Effect.sync(() => recorder.onState(event))),
    Effect.ignore(Stream.runForEach(decisions, (decided) => Effect.sync(() => recorder.onDecision(decided))))
  ], { concurrency: 2, discard: true })

const routes = (phase: Phase, recorder: Recorder): AdminServer.Routes => {
  const running = Effect.timeoutOption(Deferred.await(phase.started), "2 seconds").pipe(
    Effect.flatten,
    Effect.catchTag(
      "NoSuchElementException",
      () =>
        Effect.flatMap(StateDir.look(phase.config.stateDir), (trouble) =>
          new AdminError({
            code: "timed_out",
            message: trouble !== null
              ? `it waits for its state directory ${phase.config.stateDir}: ${trouble.message}`
              : phase.waiting === null
              ? "it is still starting; see its log"
              : `it waits for its relay ${phase.waiting.relay}: ${phase.waiting.problem}`
          }))
    )
  )
  /** The status of a node that has not enrolled. */
  const unenrolled = ({ problem, proxy, reason, relay }: Enrol.Waiting) => ({
    self: { role: phase.config.role, name: phase.config.name, network: null, relay },
    peers: [],
    signaling: { state: "enrolling", carrier: null, relay, problem, reason, proxy, connects: 0 },
    leg: null,
    restartNeeded: []
  })
  const status: Effect.Effect<object, AdminError> = Effect.gen(function*() {
    if (!(yield* Deferred.isDone(phase.started)) && phase.waiting !== null) return unenrolled(phase.waiting)
    const { self, status } = yield* running
    const told = yield* Effect.mapError(status, failed)
    const { isStopping: stopping, reloadProblem, restartNeeded } = phase
    const stateTrouble = yield* StateDir.look(phase.config.stateDir, phase.stateDir)
    const { limit, open } = Descriptors.read()
    const descriptors = { open, limit: Number.isFinite(limit) ? limit : null, reserve: Descriptors.reserveOf(limit) }
    const limits = "limits" in phase.config ? phase.config.limits : null
    return { self, ...told, stopping, descriptors, limits, restartNeeded, stateTrouble, reloadProblem }
  })
  /**
   * Runs the network check. The relay tells its UDP port only once it has been reached; until then
   * the usual port is asked.
   */
  const netcheck = Effect.gen(function*() {
    if (!(yield* Deferred.isDone(phase.started)) && phase.waiting !== null) return yield* askUsual(phase.waiting.relay)
    const { netcheck, self } = yield* running
    if (netcheck === null) return yield* notOfRelay
    return yield* Effect.catchAll(
      netcheck,
      (error): Effect.Effect<NetReport, { readonly message: string }> =>
        error._tag === "NetCheckFailed" && self.relay !== null ? askUsual(self.relay) : Effect.fail(error)
    )
  }).pipe(Effect.mapError(adminError))
  const threads = Effect.flatMap(
    Deferred.isDone(phase.started),
    (isStarted) =>
      !isStarted && phase.waiting !== null
        ? Effect.succeed([])
        : Effect.flatMap(running, ({ supervisor }) => supervisor.status)
  )
  const unavailable = (message: string) => Effect.fail(new AdminError({ code: "unavailable", message }))
  const onFailure = ({ message }: { readonly message: string }) => unavailable(message)
  const okUnless = (missing: ReadonlyArray<string>) =>
    missing.length === 0 ? Effect.succeed(OK) : unavailable(missing.join("; "))
  // Healthy even before the start has finished, because a node waits for its relay without a limit.
  const lost = Effect.flatMap(
    Deferred.poll(phase.started),
    (polled) =>
      Option.isNone(polled) ? Effect.succeed([]) : Effect.flatMap(polled.value, ({ supervisor }) => supervisor.lost)
  )
  const drainOf = Effect.flatMap(running, ({ drain }) => drain === null ? notDrained : Effect.succeed(drain))
  const decodeDrain = Schema.decodeUnknown(WantedDrain)
  const decodePing = Schema.decodeUnknown(Schema.Struct({ peer: Schema.String }))
  const decodeNode = Schema.decodeUnknown(Schema.Struct({ node: Schema.String }))
  return {
    ...InspectorFiles.routes,
    "GET /v1/events": () => Effect.succeed(new AdminServer.Events((send) => recorder.listen(send))),
    "GET /healthz": () => Effect.flatMap(lost, okUnless),
    "GET /readyz": () =>
      Effect.gen(function*() {
        const { supervisor, unready } = yield* running
        const down = yield* supervisor.down
        // The actors that are down must not be waited for.
        if (down.length > 0) return yield* okUnless(down)
        return yield* Effect.matchEffect(unready, { onFailure, onSuccess: okUnless })
      }),
    "GET /v1/status": () => status,
    "GET /v1/resources": () =>
      Effect.flatMap(running, ({ resources }) =>
        resources === null
          ? badRequest("only a client has resources that it may use; ask a client")
          : Effect.mapError(resources, failed)),
    "GET /v1/netcheck": () => netcheck,
    "GET /metrics": () =>
      Effect.map(
        Effect.flatMap(running, ({ supervisor }) => supervisor.metrics),
        (families) => new AdminServer.Text(OpenMetrics.render(families), OpenMetrics.CONTENT_TYPE)
      ),
    "GET /v1/recorder": () => Effect.sync(() => ({ entries: recorder.entries() })),
    "GET /v1/traces": (_, query) =>
      Effect.flatMap(
        wantedOf(query),
        (wanted) =>
          Effect.map(Effect.flatMap(running, ({ supervisor }) => supervisor.spans), (spans) =>
            Traces.pick(Traces.group(spans), wanted))
      ),
    "POST /v1/ping": (body) =>
      Effect.gen(function*() {
        const { peer } = yield* Effect.mapError(decodePing(body), () => badRequest("the body must be {\"peer\": NAME}"))
        const { ping } = yield* running
        if (ping === null) return yield* badRequest("a relay has no sessions; ask a node")
        return yield* Effect.mapError(ping(peer), failed)
      }),
    "GET /v1/drain": () => Effect.mapError(Effect.flatMap(drainOf, ({ state }) => state), adminError),
    "POST /v1/drain": (body) =>
      Effect.gen(function*() {
        const { drain } = yield* Effect.mapError(decodeDrain(body), () =>
          badRequest("the body must be {\"drain\": true} or {\"drain\": false}"))
        const { set } = yield* drainOf
        if (phase.isStopping && !drain) {
          return yield* isEnding
        }
        const state = yield* set(drain)
        yield* Effect.logInfo(
          drain
            ? `draining: takes no new flows until \`sallyport drain --cancel\`; open flows go on (${state.flows})`
            : "no longer draining: takes new flows again"
        )
        return state
      }).pipe(Effect.mapError(adminError)),
    "GET /v1/network": (_, query) =>
      Effect.flatMap(
        Effect.zip(nodesWantedOf(query), running),
        ([wanted, { network }]) => network === null ? onlyOfRelay : Effect.mapError(network.overview(wanted), failed)
      ),
    "POST /v1/doctor": (body) =>
      Effect.gen(function*() {
        const { node } = yield* Effect.mapError(decodeNode(body), () => badRequest("the body must be {\"node\": NAME}"))
        const { network } = yield* running
        if (network === null) return yield* onlyOfRelay
        return { findings: yield* Effect.catchAll(network.examine(node), onFailure) }
      }),
    "GET /v1/actors": () => threads
  }
}

/** The UDP port that `sallyport relay init` writes by default. */
const USUAL_UDP_PORT = 3478
const askUsual = (relay: string) => {
  const host = Either.getOrElse(HostPort.parse(relay), () => ({ host: relay })).host
  return Netcheck.run({ host, port: USUAL_UDP_PORT })
}

const OK = new AdminServer.Text("ok\n", "text/plain; charset=utf-8")

const failed = ({ message }: { readonly message: string }) => new AdminError({ code: "internal", message })
const adminError = (error: { readonly message: string }) => error instanceof AdminError ? error : failed(error)
const badRequest = (message: string) => new AdminError({ code: "bad_request", message })
const onlyOfRelay = badRequest("only the relay with the directory knows the network; ask it")
const notDrained = badRequest("only a connector serves flows that can be drained; ask a connector")
const isEnding = new AdminError({
  code: "conflict",
  message: "this connector is stopping and takes no new flows any more; start it again"
})
const notOfRelay = badRequest("a relay has no other relay to test with; ask a node")

/** Parses `?last=N`, and `?id=` with the beginning of a trace's id. */
const wantedOf = (query: URLSearchParams) =>
  Effect.mapError(
    Schema.decodeUnknown(Traces.Wanted)(Object.fromEntries(query)),
    () => badRequest(`the query may have last=1 to ${Traces.MAX_LAST}, and id=4 to 32 hex digits`)
  )

const NodesQuery = Schema.Struct({
  find: Schema.optionalWith(Schema.String, { default: () => "" }),
  after: Schema.optionalWith(Schema.String, { default: () => "" }),
  limit: Schema.optionalWith(Schema.compose(Schema.NumberFromString, Wanted.fields.limit), { default: () => MAX_NODES })
})
const nodesWantedOf = (query: URLSearchParams) =>
  Effect.mapError(
    Schema.decodeUnknown(NodesQuery)(Object.fromEntries(query)),
    () => badRequest(`the query may have find=PART, after=NAME and limit=1 to ${MAX_NODES}`)
  )

/**
 * Reads the configuration file again, applies what can change live and logs which keys need a
 * restart. If the file is broken or a listener cannot be opened, everything stays as it was and the
 * log says why.
 */
const reload = ({ admin, file, first, phase }: {
  readonly file: string
  readonly phase: Phase
  readonly admin: { readonly move: (to: AdminEndpoint) => Effect.Effect<void, AdminListenError> }
  /** The configuration with which the process started. */
  readonly first: Config
}) =>
(running: Running) =>
  Effect.gen(function*() {
    const next = yield* Effect.filterOrFail(
      load(file),
      ({ role }) => role === first.role,
      () => ({ message: `the role cannot change while running; it stays ${first.role}` })
    )
    const live = Reload.changed(phase.config, next, "live", first)
    if (live.includes("admin")) yield* admin.move(next.admin)
    yield* Effect.onError(
      running.reload(next),
      () => live.includes("admin") ? Effect.ignore(admin.move(phase.config.admin)) : Effect.void
    )
    const tuned = { level: Threads.levelOf(next), sample: next.telemetry.sample }
    yield* Telemetry.tune(tuned)
    yield* running.supervisor.tune(tuned)
    phase.config = next
    phase.restartNeeded = Reload.changed(first, next, "restart")
    return live
  }).pipe(Effect.matchEffect({
    onFailure: (error) => {
      const { message } = error
      const again = error instanceof HubError
      const isNew = phase.reloadProblem !== message
      phase.reloadProblem = message
      const text = `the configuration was not reloaded, so the old values stay in effect: ${message}`
      return Effect.as(
        isNew ? Effect.logError(again ? `${text}; sallyport tries again by itself` : text) : Effect.void,
        { again }
      )
    },
    onSuccess: (live) => {
      phase.reloadProblem = null
      const { restartNeeded } = phase
      const done = live.length === 0
        ? "the configuration was reloaded; none of the keys that take effect at once has changed"
        : `the configuration was reloaded: ${live.join(", ")}`
      return Effect.as(
        restartNeeded.length === 0
          ? Effect.logInfo(done)
          : Effect.logWarning(`${done}; restart sallyport for: ${restartNeeded.join(", ")}`),
        { again: false }
      )
    }
  }))

/** Runs the effect at each SIGHUP. A later signal ends the effect of an earlier one first. */
const onHangUp = <A>(effect: Effect.Effect<A>) =>
  Effect.gen(function*() {
    const fork = yield* FiberSet.makeRuntime()
    let last: Fiber.RuntimeFiber<A> | null = null
    const onSignal = () => {
      const before = last
      last = fork(Effect.zipRight(before === null ? Effect.void : Fiber.interrupt(before), effect))
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => process.on("SIGHUP", onSignal)),
      () => Effect.sync(() => process.off("SIGHUP", onSignal))
    )
  })
