/** The client's local doors: SOCKS5 listeners and forwards, and what happens to a connection that comes in by one. */
import { Effect, type Scope } from "effect"
import type { Verdict } from "../../protocol/FlowWire.ts"
import * as ListenCheck from "../../services/ListenCheck.ts"
import { pump as startPump, type PumpOptions } from "../../transport/flow/FlowPump.ts"
import type { FlowStream } from "../../transport/flow/FlowStream.ts"
import { ForwardServer } from "../../transport/flow/ForwardServer.ts"
import type { ListenAt } from "../../transport/flow/Listener.ts"
import type { Places } from "../../transport/flow/Places.ts"
import { Socks5Server } from "../../transport/flow/Socks5Server.ts"
import { adopt } from "../../transport/flow/TcpReader.ts"
import { type Forward, ListenFailed } from "../StreamMuxRpcs.ts"

type Watch = Pick<PumpOptions, "onFirst" | "onDone" | "meter">

/** A connection that wants to go somewhere. `begin` is called once the resource has accepted; `refuse` otherwise. */
export interface Request {
  readonly host: string
  readonly port: number
  /** Aborted when the application leaves before the answer. */
  readonly gone: AbortSignal
  /** False: the application has left, and the stream is the caller's to abort. */
  readonly begin: (stream: FlowStream, fromStream: Uint8Array, watch: Watch) => boolean
  readonly refuse: (verdict: Verdict) => void
}

export interface Doors {
  readonly addresses: () => { readonly socks5: string | null; readonly forwards: ReadonlyArray<string> }
  readonly setForwards: (forwards: ReadonlyArray<Forward>) => Effect.Effect<void, ListenFailed>
}

const ACCEPTED: Verdict = { code: "accepted", reason: "" }

export const render = (at: ListenAt): string =>
  "path" in at ? at.path : at.host.includes(":") ? `[${at.host}]:${at.port}` : `${at.host}:${at.port}`

/** Opens every door, or none. `local`: a unix socket for programs that embed this node. All close with the scope. */
export const make = Effect.fnUntraced(function*(options: {
  readonly socks5: ListenAt | null
  readonly local: ListenAt | null
  readonly forwards: ReadonlyArray<Forward>
  readonly places: Places
  readonly onRequest: (request: Request) => void
}) {
  const { onRequest, places } = options
  const running = new Map<string, Door>()
  yield* Effect.addFinalizer(() => Effect.promise(() => Promise.all([...running.values()].map(({ stop }) => stop()))))

  const socks = options.socks5 === null ? null : yield* openSocks(options.socks5, places, onRequest)
  if (options.local !== null) yield* openSocks(options.local, places, onRequest)

  /** First whatever may fail; an address that stays keeps its listener, and leads elsewhere from then on. */
  const setForwards = Effect.fnUntraced(function*(forwards: ReadonlyArray<Forward>) {
    const wanted = new Map(forwards.map((forward) => [keyOf(forward), forward]))
    const opened = new Map<string, Door>()
    yield* Effect.forEach(
      [...wanted].filter(([key]) => !running.has(key)),
      ([key, forward]) => Effect.map(openForward(forward, places, onRequest), (door) => opened.set(key, door)),
      { discard: true }
    ).pipe(
      Effect.onError(() => Effect.promise(() => Promise.all([...opened.values()].map(({ stop }) => stop()))))
    )
    for (const [key, door] of opened) running.set(key, door)
    for (const [key, door] of running) {
      const forward = wanted.get(key)
      if (forward !== undefined) door.forward = forward
      else {
        running.delete(key)
        yield* Effect.promise(door.stop)
      }
    }
  })
  yield* setForwards(options.forwards)
  return {
    addresses: () => ({ socks5: socks, forwards: [...running.values()].map(({ address }) => address) }),
    setForwards
  } satisfies Doors
})

/** One listener. Where it leads is looked up for each connection. */
interface Door {
  readonly address: string
  readonly stop: () => Promise<void>
  forward: Forward
}

/** Every forward on "any free port" is one of its own. */
const keyOf = ({ listen, port, resource }: Forward) =>
  listen.port === 0 ? `${render(listen)} ${resource} ${port}` : render(listen)

const openSocks = (
  at: ListenAt,
  places: Places,
  onRequest: (request: Request) => void
): Effect.Effect<string, ListenFailed, Scope.Scope> => {
  const server = new Socks5Server({
    listen: at,
    places,
    connect: ({ answer, gone, socket, target }) =>
      onRequest({
        host: target.host,
        port: target.port,
        gone,
        begin: (stream, fromStream, watch) => {
          const early = answer(ACCEPTED)
          return early !== null && pump({ stream, socket: adopt(socket), fromStream, fromSocket: early, ...watch })
        },
        refuse: answer
      })
  })
  return Effect.acquireRelease(started(at, "SOCKS5", () => server.start()), () => Effect.promise(() => server.stop()))
    .pipe(
      Effect.map(render)
    )
}

const openForward = (forward: Forward, places: Places, onRequest: (request: Request) => void) => {
  const server = new ForwardServer({
    listen: forward.listen,
    places,
    connect: ({ answer, gone, reader }) =>
      onRequest({
        host: door.forward.resource,
        port: door.forward.port,
        gone,
        begin: (stream, fromStream, watch) =>
          answer(ACCEPTED) && pump({ stream, socket: reader, fromStream, ...watch }),
        refuse: answer
      })
  })
  const door = { forward, address: "", stop: () => server.stop() }
  return started(forward.listen, `the forward to ${forward.resource}:${forward.port}`, () => server.start()).pipe(
    Effect.map((at): Door => Object.assign(door, { address: render(at) }))
  )
}

const pump = (options: PumpOptions): true => {
  startPump(options)
  return true
}

const started = (at: ListenAt, what: string, start: () => Promise<ListenAt>) =>
  Effect.tryPromise({
    try: start,
    catch: (cause) => new ListenFailed({ message: `${what} cannot listen on ${render(at)}: ${remedy(at, cause)}` })
  })

const remedy = (at: ListenAt, cause: unknown): string => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
  return ListenCheck.remedy(code, "port" in at ? at.port : 0, "tcp")
}
