/**
 * Runs the actors of one thread, as the supervisor commands over one control port. Each actor has a
 * scope of its own.
 */
import { type Rpc, RpcServer } from "@effect/rpc"
import { Cause, Deferred, Duration, Effect, ExecutionStrategy, Exit, Fiber, Layer, Mailbox, Scope } from "effect"
import * as Limits from "../../../services/telemetry/Limits.ts"
import * as Metrics from "../../../services/telemetry/Metrics.ts"
import * as SpanRing from "../../../services/telemetry/SpanRing.ts"
import * as Telemetry from "../../../services/telemetry/Telemetry.ts"
import { type Actor, type Incarnation, NotStarted } from "../actor/Actor.ts"
import type { ActorAddress } from "../actor/ActorAddress.ts"
import * as ActorRef from "../actor/ActorRef.ts"
import { Peers } from "../actor/Peers.ts"
import { type Queue, Self } from "../actor/Self.ts"
import * as MessagePortProtocol from "../port/MessagePortProtocol.ts"
import type { Port } from "../port/Port.ts"
import * as LoopHealth from "./LoopHealth.ts"
import { type Death, type Health, ThreadRpcs } from "./ThreadContract.ts"

/**
 * Actors by name. They are imported dynamically, so that a thread loads only the actors placed on
 * it.
 */
export type Registry = Readonly<Record<string, () => Promise<Actor>>>

/**
 * How long the finalizers of a dead actor may take. After that, the next incarnation starts beside
 * whatever they did not release.
 */
const RELEASE_DEADLINE = Duration.seconds(2)
/**
 * Most deaths that may wait for the supervisor to read them. The oldest is dropped when it is full,
 * which does not happen: at most one per actor of a thread can wait.
 */
const DEATHS_CAPACITY = 64

/**
 * Serves the control port until `Shutdown`, or until the port closes, so that nothing is left
 * running when the supervisor is gone. `own` gives metrics to report beside those of the actors.
 */
export const run = Effect.fnUntraced(function*(
  registry: Registry,
  control: Port,
  own: Metrics.Source = () => []
) {
  const shutdown = yield* Deferred.make<void>()
  const host = yield* makeHost(registry, shutdown, own)
  const connection = yield* MessagePortProtocol.makeServer(control)
  yield* RpcServer.make(ThreadRpcs, { concurrency: "unbounded", disableFatalDefects: true, disableTracing: true }).pipe(
    Effect.provideService(RpcServer.Protocol, connection.protocol),
    Effect.provide(host),
    Effect.forkScoped
  )
  // Added last, so it runs first, as in `Actor.serve`.
  yield* Effect.addFinalizer(() => connection.hangUp)
  yield* Effect.raceFirst(Deferred.await(shutdown), connection.closed)
}, Effect.scoped)

type AnyRef = { readonly ref: ActorRef.ActorRef<Rpc.Any>; readonly link: ActorRef.Link }
/** One incarnation as its thread knows it. */
type Hosted = {
  readonly actor: Actor
  readonly incarnation: number
  readonly scope: Scope.CloseableScope
  readonly links: ReadonlyMap<string, AnyRef>
  readonly queues: Set<Queue>
  readonly died: Deferred.Deferred<Cause.Cause<unknown>>
  readonly up: Deferred.Deferred<Incarnation>
  closing: boolean
}

const makeHost = Effect.fnUntraced(function*(
  registry: Registry,
  shutdown: Deferred.Deferred<void>,
  own: Metrics.Source
) {
  const threadScope = yield* Effect.scope
  const hosted = new Map<string, Hosted>()
  const deaths = yield* Mailbox.make<Death>({ capacity: DEATHS_CAPACITY, strategy: "sliding" })
  const health = yield* makeHealth(hosted)
  const sources = new Set([own])
  /** Counts of sources that have been removed. */
  let counted: ReadonlyArray<Metrics.Family> = []
  const expose = (source: Metrics.Source) =>
    Effect.acquireRelease(Effect.sync(() => sources.add(source)), () =>
      Effect.sync(() => {
        sources.delete(source)
        counted = Metrics.merge([counted, Metrics.lasting(source())])
      })).pipe(Effect.asVoid)

  const find = ({ incarnation, name }: { readonly name: string; readonly incarnation: number }) => {
    const found = hosted.get(name)
    return found?.incarnation === incarnation && !found.closing ? found : undefined
  }
  const release = (it: Hosted) =>
    Effect.suspend(() => {
      it.closing = true
      // A start that is under way ends by this.
      return Deferred.succeed(it.died, Cause.empty)
    }).pipe(
      Effect.zipRight(Scope.close(it.scope, Exit.void)),
      Effect.tap(() =>
        Effect.sync(() => {
          if (hosted.get(it.actor.address.name) === it) hosted.delete(it.actor.address.name)
        })
      )
    )
  /**
   * Releases a dead actor, but not for longer than {@link RELEASE_DEADLINE}: a finalizer that hangs
   * must not keep the actor from being restarted.
   */
  const releaseSoon = (it: Hosted) =>
    Effect.forkDaemon(release(it)).pipe(
      Effect.flatMap((releasing) => Effect.interruptible(Fiber.await(releasing))),
      Effect.timeout(RELEASE_DEADLINE),
      Effect.catchAll(() => Effect.logWarning("finalizers of a dead actor hang; it is restarted beside them")),
      Effect.annotateLogs({ actor: it.actor.address.name })
    )

  const watch = (it: Hosted) =>
    Effect.gen(function*() {
      const { incarnation } = it
      const name = it.actor.address.name
      const cause = yield* Deferred.await(it.died)
      if (it.closing) return // stopped on purpose
      yield* Effect.logError("actor died", cause).pipe(Effect.annotateLogs({ actor: name, incarnation }))
      yield* releaseSoon(it)
      yield* deaths.offer({ name, incarnation, message: Cause.pretty(cause) })
    })

  const load = Effect.fnUntraced(function*(name: string, incarnation: number, uses: ReadonlyArray<string>) {
    const actor = yield* importActor(registry, name)
    const declared = actor.uses.map((address) => address.name)
    if ([...declared].sort().join() !== [...uses].sort().join()) {
      const message = `it declares [${declared.join(", ")}], and the supervisor was told [${uses.join(", ")}]`
      return yield* new NotStarted({ actor: name, reason: "uses", message })
    }
    const before = hosted.get(name)
    // The start of the incarnation before was given up.
    if (before !== undefined) yield* releaseSoon(before)
    const scope = yield* Scope.fork(threadScope, ExecutionStrategy.sequential)
    const links = new Map<string, AnyRef>()
    // Forked before the actor's own resources, so it is closed after them.
    const linkScope = yield* Scope.fork(scope, ExecutionStrategy.sequential)
    for (const address of actor.uses) {
      links.set(address.name, yield* Scope.extend(ActorRef.make(address as ActorAddress<Rpc.Any>), linkScope))
    }
    hosted.set(name, {
      actor,
      incarnation,
      scope,
      links,
      queues: new Set(),
      died: yield* Deferred.make<Cause.Cause<unknown>>(),
      up: yield* Deferred.make<Incarnation>(),
      closing: false
    })
  })

  const start = Effect.fnUntraced(function*(it: Hosted, config: unknown) {
    const running = yield* it.actor.start(config).pipe(
      Effect.provide(environment(it, expose)),
      Scope.extend(it.scope),
      // The actor may die before it is up.
      Effect.raceFirst(
        Effect.flatMap(
          Deferred.await(it.died),
          (cause) => new NotStarted({ actor: it.actor.address.name, reason: "layer", message: Cause.pretty(cause) })
        )
      )
    )
    yield* Deferred.succeed(it.up, running)
    yield* Effect.forkIn(watch(it), threadScope)
  })

  const serve = (it: Hosted, port: Port) =>
    Effect.gen(function*() {
      const { serve } = yield* Deferred.await(it.up)
      const edge = yield* Scope.fork(it.scope, ExecutionStrategy.sequential)
      const { closed } = yield* Scope.extend(serve(port), edge)
      yield* Effect.forkIn(Effect.zipRight(closed, Scope.close(edge, Exit.void)), it.scope)
    })

  return yield* ThreadRpcs.toHandlersContext(ThreadRpcs.of({
    Load: ({ incarnation, name, uses }) => load(name, incarnation, uses),
    Start: (which) =>
      Effect.suspend(() => {
        const it = find(which)
        return it === undefined ? Effect.void : Effect.onError(start(it, which.config), () => releaseSoon(it))
      }),
    Stop: (which) =>
      Effect.suspend(() => {
        const it = find(which)
        return it === undefined ? Effect.void : release(it)
      }),
    Connect: (which) =>
      Effect.suspend(() => {
        const link = find(which)?.links.get(which.peer)?.link
        return link === undefined ? close(which.port) : link.connect(which.port, which.peerIncarnation)
      }),
    Serve: (which) =>
      Effect.suspend(() => {
        const it = find(which)
        return it === undefined ? close(which.port) : serve(it, which.port)
      }),
    GiveUp: ({ peer }) =>
      Effect.forEach(hosted.values(), ({ links }) => links.get(peer)?.link.giveUp ?? Effect.void, { discard: true }),
    Health: () => Effect.zipRight(logLimits, health),
    Metrics: () =>
      Effect.sync(() => Metrics.merge([counted, Limits.families(), ...Array.from(sources, (read) => read())])),
    Spans: () => SpanRing.read,
    Deaths: () => Mailbox.toStream(deaths),
    Tune: Telemetry.tune,
    Shutdown: () => Effect.asVoid(Deferred.succeed(shutdown, undefined))
  }))
})

const close = (port: Port) => Effect.sync(() => port.close())

const importActor = (registry: Registry, name: string) =>
  Effect.gen(function*() {
    const load = Object.hasOwn(registry, name) ? registry[name] : undefined
    if (load === undefined) {
      const known = Object.keys(registry).join(", ")
      return yield* new NotStarted({ actor: name, reason: "unknown_actor", message: `this program has only: ${known}` })
    }
    return yield* Effect.tryPromise({
      try: load,
      catch: (cause) => new NotStarted({ actor: name, reason: "import", message: describe(cause) })
    })
  })

const describe = (cause: unknown) => (cause instanceof Error ? cause.stack ?? cause.message : String(cause))

const environment = (it: Hosted, exposeMetrics: Self["Type"]["exposeMetrics"]) => {
  const name = it.actor.address.name
  const self = Self.of({
    name,
    incarnation: it.incarnation,
    die: (cause) => Effect.asVoid(Deferred.succeed(it.died, cause)),
    watchQueue: (queue) =>
      Effect.acquireRelease(Effect.sync(() => it.queues.add(queue)), () => Effect.sync(() => it.queues.delete(queue)))
        .pipe(
          Effect.asVoid
        ),
    exposeMetrics
  })
  const peers = Peers.of({
    ref: (address) => {
      const found = it.links.get(address.name)
      if (found === undefined) throw new Error(`actor ${name} must list ${address.name} in its uses`)
      return found.ref // its type fits: it was made from the address of this name
    }
  })
  return Layer.merge(Layer.succeed(Self, self), Layer.succeed(Peers, peers))
}

/**
 * Logs the limits that were newly met, because the plain code that meets a limit cannot log. Each
 * health call of the supervisor runs this, once a second.
 */
const logLimits = Effect.suspend(() =>
  Effect.forEach(
    Limits.takeNews(),
    ({ limit, times }) =>
      Effect.annotateLogs(Effect.logWarning(Limits.TEXT[limit].what), {
        limit,
        times,
        remedy: Limits.TEXT[limit].remedy
      }),
    { discard: true }
  )
)

const makeHealth = (hosted: ReadonlyMap<string, Hosted>) =>
  Effect.map(LoopHealth.make, (loop) =>
    Effect.map(loop, (health): Health => ({
      ...health,
      limits: Limits.read(),
      actors: [...hosted.values()].map((it) => ({
        name: it.actor.address.name,
        incarnation: it.incarnation,
        queues: [...it.queues].map(({ capacity, depth, name }) => ({ name, capacity, depth: depth() }))
      }))
    })))
