/** The client's local doors: SOCKS5 listeners and forwards, and what happens to a connection that comes in by one. */
import { Effect } from "effect"
import type { Verdict } from "../../protocol/FlowWire.ts"
import type { FailReason } from "../../protocol/Socks5.ts"
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
  readonly set: (wanted: Wanted) => Effect.Effect<void, ListenFailed>
}

export interface Wanted {
  readonly socks5: ListenAt | null
  readonly forwards: ReadonlyArray<Forward>
}

const ACCEPTED: Verdict = { code: "accepted", reason: "" }

export const render = (at: ListenAt): string =>
  "path" in at ? at.path : at.host.includes(":") ? `[${at.host}]:${at.port}` : `${at.host}:${at.port}`

/** Opens every listener, or none. `local`: a unix socket for programs that embed this node. All close with the scope. */
export const make = Effect.fnUntraced(function*(options: {
  readonly socks5: ListenAt | null
  readonly local: ListenAt | null
  readonly forwards: ReadonlyArray<Forward>
  readonly places: Places
  readonly onRequest: (request: Request) => void
  /** A program spoke something else than SOCKS to the listener at `address`. */
  readonly onForeign: (reason: FailReason, address: string) => void
}) {
  const { onForeign, onRequest, places } = options
  let socks: Door | null = null
  const running = new Map<string, ForwardDoor>()
  const all = (): ReadonlyArray<Door> => [...(socks === null ? [] : [socks]), ...running.values()]
  yield* Effect.addFinalizer(() => stopAll(all()))
  if (options.local !== null) {
    yield* Effect.acquireRelease(
      openSocks(options.local, places, onRequest, onForeign),
      ({ stop }) => Effect.promise(stop)
    )
  }

  /** Opens what is new before it closes anything. An address that stays keeps its listener and leads to the new target. */
  const set = Effect.fnUntraced(function*({ forwards, socks5 }: Wanted) {
    const wanted = new Map(forwards.map((forward) => [keyOf(forward), forward]))
    const opened: Array<Door> = []
    const [nextSocks, added] = yield* Effect.gen(function*() {
      const keeps = socks !== null && socks5 !== null && render(socks5) === socks.asked
      const nextSocks = keeps ? socks : socks5 === null ? null : yield* openSocks(socks5, places, onRequest, onForeign)
      if (nextSocks !== null && nextSocks !== socks) opened.push(nextSocks)
      const added = new Map<string, ForwardDoor>()
      for (const [key, forward] of wanted) {
        if (running.has(key)) continue
        const door = yield* openForward(forward, places, onRequest)
        opened.push(door)
        added.set(key, door)
      }
      return [nextSocks, added] as const
    }).pipe(Effect.onError(() => stopAll(opened)))
    const closed: Array<Door> = socks !== null && socks !== nextSocks ? [socks] : []
    socks = nextSocks
    for (const [key, door] of running) {
      const forward = wanted.get(key)
      if (forward !== undefined) {
        door.forward = forward
        continue
      }
      running.delete(key)
      closed.push(door)
    }
    for (const [key, door] of added) running.set(key, door)
    yield* stopAll(closed)
  })
  yield* set(options)
  return {
    addresses: () => ({
      socks5: socks?.address ?? null,
      forwards: [...running.values()].map(({ address }) => address)
    }),
    set
  } satisfies Doors
})

const stopAll = (doors: ReadonlyArray<Door>) => Effect.promise(() => Promise.all(doors.map(({ stop }) => stop())))

/** One listener. */
interface Door {
  /** As the configuration says. */
  readonly asked: string
  /** With the real port. */
  readonly address: string
  readonly stop: () => Promise<void>
}
interface ForwardDoor extends Door {
  /** Where it leads. Looked up for each connection. */
  forward: Forward
}

/** Every forward on "any free port" is one of its own. */
const keyOf = ({ listen, port, resource }: Forward) =>
  listen.port === 0 ? `${render(listen)} ${resource} ${port}` : render(listen)

const openSocks = (
  at: ListenAt,
  places: Places,
  onRequest: (request: Request) => void,
  onForeign: (reason: FailReason, address: string) => void
): Effect.Effect<Door, ListenFailed> => {
  const server = new Socks5Server({
    listen: at,
    places,
    onRefused: (reason) => onForeign(reason, render(at)),
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
  return Effect.map(started(at, "SOCKS5", () => server.start()), (listening) => ({
    asked: render(at),
    address: render(listening),
    stop: () => server.stop()
  }))
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
  const door = { forward, asked: render(forward.listen), address: "", stop: () => server.stop() }
  return started(forward.listen, `the forward to ${forward.resource}:${forward.port}`, () => server.start()).pipe(
    Effect.map((at): ForwardDoor => Object.assign(door, { address: render(at) }))
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
