/** One process of one role, from its configuration to its end: what `sallyport run` does. */
import { Console, Deferred, Effect, FiberSet, Option, Schema, Stream } from "effect"
import { MAX_NODES, Wanted } from "../actors/SignalingHubRpcs.ts"
import { AdminError } from "../services/AdminError.ts"
import * as AdminServer from "../services/AdminServer.ts"
import { type Config, load } from "../services/config/Config.ts"
import * as InspectorFiles from "../services/InspectorFiles.ts"
import * as Telemetry from "../services/Telemetry.ts"
import * as OpenMetrics from "../services/telemetry/OpenMetrics.ts"
import { Recorder } from "../services/telemetry/Recorder.ts"
import * as Traces from "../services/telemetry/Traces.ts"
import * as ServiceManager from "../transport/ServiceManager.ts"
import * as Forwarder from "./Forwarder.ts"
import * as Node from "./Node.ts"
import * as Relay from "./Relay.ts"
import type { Running } from "./Running.ts"
import * as Threads from "./Threads.ts"

/** It could not start, or had to end; `message` is for the operator. */
export class RunFailed extends Schema.TaggedError<RunFailed>()("RunFailed", { message: Schema.String }) {}

export interface Options {
  readonly logFormat: "json" | "pretty"
  readonly configFile: string
}

/** Starts a role; it stops with the scope, in order: doors, sessions, links, threads. */
export const start = (config: Config, telemetry: Telemetry.Settings, options: Node.Options) =>
  config.role === "relay"
    ? Relay.start(config, telemetry)
    : config.role === "forwarder"
    ? Forwarder.start(config, telemetry)
    : Node.start(config, telemetry, options)

/** Runs until interrupted. Fails when it cannot start, and when an actor keeps dying. */
export const run = (config: Config, options: Options): Effect.Effect<never, RunFailed> => {
  const telemetry = Threads.telemetryOf(config, options.logFormat)
  return Effect.gen(function*() {
    const started = yield* Deferred.make<Running>()
    const recorder = new Recorder()
    const manager = ServiceManager.make(process.env)
    yield* onHangUp(
      Effect.flatMap(Deferred.await(started), (running) =>
        Effect.ensuring(
          Effect.zipRight(manager.reloading, reload(options.configFile, config, running)),
          manager.ready
        ))
    )
    yield* AdminServer.make({ listen: config.admin, routes: routes(started, recorder) })
    const running = yield* start(config, telemetry, { localDoor: false })
    yield* Effect.forkScoped(record(running, recorder))
    yield* Telemetry.exportMetrics(telemetry, running.supervisor.metrics)
    const { name, role } = config
    const ready = JSON.stringify({ event: "ready", role, name, listen: running.listen })
    yield* options.logFormat === "json" ? Console.log(ready) : Effect.logInfo(`ready ${JSON.stringify(running.listen)}`)
    yield* Effect.addFinalizer(() => manager.stopping)
    yield* manager.watch(Effect.map(running.supervisor.lost, (lost) => lost.length === 0))
    yield* manager.ready
    yield* Deferred.succeed(started, running)
    return yield* running.supervisor.awaitGiveUp
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) => new RunFailed({ message: error.message })),
    Effect.provide(Telemetry.layer(telemetry, "main"))
  )
}

/** Ends only when the supervisor gives the prober up, of which it tells by itself. */
const record = ({ decisions, supervisor }: Running, recorder: Recorder) =>
  Effect.all([
    Stream.runForEach(supervisor.events, (event) => Effect.sync(() => recorder.onState(event))),
    Effect.ignore(Stream.runForEach(decisions, (decided) => Effect.sync(() => recorder.onDecision(decided))))
  ], { concurrency: 2, discard: true })

const routes = (started: Deferred.Deferred<Running>, recorder: Recorder): AdminServer.Routes => {
  const running = Effect.timeoutFail(Deferred.await(started), {
    duration: "2 seconds",
    onTimeout: () => new AdminError({ code: "timed_out", message: "it is still starting; see its log" })
  })
  const unavailable = (message: string) => Effect.fail(new AdminError({ code: "unavailable", message }))
  const onFailure = ({ message }: { readonly message: string }) => unavailable(message)
  const okUnless = (missing: ReadonlyArray<string>) =>
    missing.length === 0 ? Effect.succeed(OK) : unavailable(missing.join("; "))
  // Before it has started it answers, too: a node waits for its relay for as long as that takes.
  const lost = Effect.flatMap(
    Deferred.poll(started),
    (polled) =>
      Option.isNone(polled) ? Effect.succeed([]) : Effect.flatMap(polled.value, ({ supervisor }) => supervisor.lost)
  )
  const decodePing = Schema.decodeUnknown(Schema.Struct({ peer: Schema.String }))
  const decodeNode = Schema.decodeUnknown(Schema.Struct({ node: Schema.String }))
  const failed = ({ message }: { readonly message: string }) => new AdminError({ code: "internal", message })
  return {
    ...InspectorFiles.routes,
    "GET /v1/events": () => Effect.succeed(new AdminServer.Events((send) => recorder.listen(send))),
    "GET /healthz": () => Effect.flatMap(lost, okUnless),
    "GET /readyz": () =>
      Effect.gen(function*() {
        const { supervisor, unready } = yield* running
        const down = yield* supervisor.down
        if (down.length > 0) return yield* okUnless(down) // what they would say must not be waited for
        return yield* Effect.matchEffect(unready, { onFailure, onSuccess: okUnless })
      }),
    "GET /v1/status": () => Effect.flatMap(running, ({ status }) => Effect.mapError(status, failed)),
    "GET /v1/netcheck": () =>
      Effect.flatMap(running, ({ netcheck }) => netcheck === null ? notOfRelay : Effect.mapError(netcheck, failed)),
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
    "GET /v1/actors": () => Effect.flatMap(running, ({ supervisor }) => supervisor.status)
  }
}

const OK = new AdminServer.Text("ok\n", "text/plain; charset=utf-8")

const badRequest = (message: string) => new AdminError({ code: "bad_request", message })
const onlyOfRelay = badRequest("only the relay with the directory knows the network; ask it")
const notOfRelay = badRequest("a relay has nobody to ask; ask a node")

/** `?last=N`, and `?id=` with the beginning of a trace's id. */
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

/** A broken file keeps the old state, and the log says why. */
const reload = (file: string, old: Config, running: Running) =>
  load(file).pipe(
    Effect.filterOrFail(
      ({ role }) => role === old.role,
      () => ({ message: `the role cannot change while running; it stays ${old.role}` })
    ),
    Effect.flatMap(running.reload),
    Effect.matchEffect({
      onFailure: ({ message }) => Effect.logError(`the configuration was not reloaded, the old one stays: ${message}`),
      onSuccess: () => Effect.logInfo("the configuration was reloaded")
    })
  )

const onHangUp = (effect: Effect.Effect<void>) =>
  Effect.gen(function*() {
    const fork = yield* FiberSet.makeRuntime()
    const onSignal = () => void fork(effect)
    yield* Effect.acquireRelease(
      Effect.sync(() => process.on("SIGHUP", onSignal)),
      () => Effect.sync(() => process.off("SIGHUP", onSignal))
    )
  })
