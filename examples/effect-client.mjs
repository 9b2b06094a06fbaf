// A program on Effect with a client inside: opens a flow as a stream and a sink, and tells each kind of failure apart.
import { Effect, Sink, Stream } from "effect"
import { Sallyport } from "sallyport"

const [resource = "tickets"] = process.argv.slice(2)
const port = Number(process.env.PORT ?? 3000)
const client = Sallyport.layer({
  role: "client",
  name: process.env.NAME ?? "reporter",
  stateDir: process.env.STATE ?? "./state-client",
  token: process.env.TOKEN
})

const program = Effect.gen(function*() {
  const { open } = yield* Sallyport
  const { sink, stream } = yield* open(resource, port)
  const request = `GET /tickets HTTP/1.0\r\nhost: ${resource}\r\n\r\n`
  yield* Stream.run(Stream.make(new TextEncoder().encode(request)), sink)
  return yield* stream.pipe(Stream.decodeText(), Stream.run(Sink.mkString))
}).pipe(
  Effect.scoped, // closes the flow
  Effect.catchTags({
    DialFailed: ({ message, reason }) => Effect.fail(`not opened (${reason}): ${message}`),
    FlowBroken: ({ message }) => Effect.fail(`broken under way: ${message}`)
  })
)

await Effect.runPromise(
  program.pipe(
    Effect.andThen((answer) => Effect.sync(() => console.log(answer))),
    Effect.provide(client), // stops the client
    Effect.catchTag("RunFailed", ({ message }) => Effect.fail(`did not start: ${message}`))
  )
)
