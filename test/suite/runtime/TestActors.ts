import { Deferred, Effect, Schedule, Schema, Stream } from "effect"
import { appendFileSync } from "node:fs"
import * as Actor from "../../../src/actors/runtime/actor/Actor.ts"
import * as Inbox from "../../../src/actors/runtime/actor/Inbox.ts"
import { Peers } from "../../../src/actors/runtime/actor/Peers.ts"
import { Self } from "../../../src/actors/runtime/actor/Self.ts"
import type { Registry } from "../../../src/actors/runtime/thread/ThreadHost.ts"
import { Broken, BrokenRpcs, Echo, EchoFailed, EchoRpcs, Front, FrontRpcs, Middle, MiddleRpcs } from "./TestRpcs.ts"

/** Every config names the file in which the actor tells the test that it was released; the one thing that reaches out of any placement. */
const Config = Schema.Struct({ channel: Schema.String })
type Config = typeof Config.Type

const tell = ({ channel }: Config, message: string) => Effect.sync(() => appendFileSync(channel, `${message}\n`))

const traceId = Effect.map(Effect.currentSpan, (span) => span.traceId).pipe(Effect.orElseSucceed(() => "none"))

type Message =
  | { readonly _tag: "Bump"; readonly reply: Inbox.Reply<number> }
  | { readonly _tag: "Trace"; readonly reply: Inbox.Reply<string> }
  | { readonly _tag: "Append"; readonly n: number }
  | { readonly _tag: "Appended"; readonly reply: Inbox.Reply<ReadonlyArray<number>> }
  | { readonly _tag: "Die" }

const echo = (config: Config) =>
  EchoRpcs.toLayer(Effect.gen(function*() {
    const { incarnation } = yield* Self
    let bumps = 0
    let interrupted = 0
    let produced = 0
    const appended: Array<number> = []
    const inbox = yield* Inbox.make<Message>({
      capacity: 16,
      handle: (message) => {
        switch (message._tag) {
          case "Bump":
            return Deferred.succeed(message.reply, ++bumps)
          case "Trace":
            return Effect.flatMap(traceId, (id) => Deferred.succeed(message.reply, id))
          case "Append":
            return Effect.sync(() => void appended.push(message.n))
          case "Appended":
            return Deferred.succeed(message.reply, appended)
          case "Die":
            return Effect.die(new Error("told to die"))
        }
      }
    })
    yield* Effect.addFinalizer(() => tell(config, "echo"))
    return EchoRpcs.of({
      Echo: ({ n }) => Effect.succeed(n),
      Fail: ({ why }) => new EchoFailed({ why }),
      HandlerDies: () => Effect.die(new Error("handler bug")),
      LoopDies: () => Effect.zipRight(inbox.post({ _tag: "Die" }), Effect.never),
      Hang: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++)),
      Interrupted: () => Effect.sync(() => interrupted),
      Bump: () => inbox.ask((reply) => ({ _tag: "Bump", reply })),
      Numbers: ({ to }) =>
        Stream.range(1, to, 1).pipe(
          Stream.rechunk(1),
          Stream.tap(() => Effect.sync(() => produced++))
        ),
      Produced: () => Effect.sync(() => produced),
      Ticks: () => Stream.fromSchedule(Schedule.spaced("5 millis")).pipe(Stream.map((n) => ({ incarnation, n }))),
      FailingStream: () => Stream.concat(Stream.make(1, 2), Stream.fail(new EchoFailed({ why: "after two" }))),
      Move: ({ bytes }) => Effect.succeed(bytes),
      Append: ({ n }) => Effect.asVoid(inbox.post({ _tag: "Append", n })),
      Appended: () => inbox.ask<ReadonlyArray<number>>((reply) => ({ _tag: "Appended", reply })),
      Trace: () => Effect.all([traceId, inbox.ask<string>((reply) => ({ _tag: "Trace", reply }))]),
      BlockThread: () =>
        Effect.sync(() => {
          for (;;) { /* until the thread is terminated */ }
        }),
      CrashThread: () => Effect.zipRight(Effect.sync(() => setImmediate(() => process.exit(7))), Effect.never)
    })
  }))

const middle = (config: Config) =>
  MiddleRpcs.toLayer(Effect.gen(function*() {
    const echo = yield* Peers.ref(Echo)
    let bumps = 0
    // A finalizer may still ask whom the actor uses.
    yield* Effect.addFinalizer(() =>
      echo.ask((client) => client.Echo({ n: 1 }), { deadline: "1 second" }).pipe(
        Effect.match({ onFailure: ({ reason }) => reason, onSuccess: () => "answered" }),
        Effect.flatMap((how) => tell(config, `middle ${how}`))
      )
    )
    return MiddleRpcs.of({
      Trace: () =>
        Effect.flatMap(traceId, (id) =>
          echo.ask((client) => client.Trace()).pipe(Effect.orDie, Effect.map((ids) => [id, ...ids]))),
      Bump: () =>
        Effect.sync(() => ++bumps),
      AskHang: ({ deadlineMs }) =>
        echo.ask((client) => client.Hang(), { deadline: deadlineMs }).pipe(
          Effect.match({ onFailure: ({ reason }) => reason, onSuccess: () => "answered" })
        ),
      AskEcho: ({ n }) =>
        Effect.merge(Effect.mapError(echo.ask((client) => client.Echo({ n })), ({ reason }) => reason)),
      PingEcho: ({ atOnce, n }) =>
        Effect.suspend(() => {
          const from = performance.now()
          const ping = (n: number) => echo.ask((client) => client.Echo({ n }), { deadline: "1 minute" })
          return Effect.forEach(Array.from({ length: n }, (_, at) => at), ping, { concurrency: atOnce, discard: true })
            .pipe(
              Effect.orDie,
              Effect.map(() => performance.now() - from)
            )
        }),
      Ticks: () => Stream.orDie(echo.subscribe((client) => client.Ticks())),
      Incarnations: () => echo.incarnations
    })
  }))

const front = (config: Config) =>
  FrontRpcs.toLayer(Effect.gen(function*() {
    const middle = yield* Peers.ref(Middle)
    yield* Effect.addFinalizer(() => tell(config, "front"))
    return FrontRpcs.of({
      Trace: () =>
        Effect.flatMap(traceId, (id) =>
          middle.ask((client) => client.Trace()).pipe(Effect.orDie, Effect.map((ids) => [id, ...ids])))
    })
  }))

const broken = ({ how }: { readonly how: "layer" | "defect" | "hang" }) =>
  BrokenRpcs.toLayer(Effect.gen(function*() {
    if (how === "layer") return yield* Effect.fail("the port is taken")
    if (how === "defect") return yield* Effect.dieMessage("a bug at boot")
    return yield* Effect.never
  }))

export const registry: Registry = {
  echo: () => Promise.resolve(Actor.make({ address: Echo, config: Config, uses: [], layer: echo })),
  middle: () => Promise.resolve(Actor.make({ address: Middle, config: Config, uses: [Echo], layer: middle })),
  front: () => Promise.resolve(Actor.make({ address: Front, config: Config, uses: [Middle], layer: front })),
  broken: () =>
    Promise.resolve(Actor.make({
      address: Broken,
      config: Schema.Struct({ how: Schema.Literal("layer", "defect", "hang") }),
      uses: [],
      layer: broken
    })),
  "broken-import": () => Promise.reject(new Error("no such module"))
}
