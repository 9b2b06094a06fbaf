/** The client's local listeners: SOCKS5 and forwards, and the handling of their connections. */
import { Effect } from "effect"
import * as HostName from "../../protocol/bytes/HostName.ts"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type { Verdict } from "../../protocol/flow/FlowWire.ts"
import type { FailReason } from "../../protocol/flow/Socks5.ts"
import * as ListenCheck from "../../services/network/ListenCheck.ts"
import type { FlowStream } from "../../session/FlowStream.ts"
import { pump as startPump, type PumpOptions } from "../../transport/flow/FlowPump.ts"
import { ForwardServer } from "../../transport/flow/ForwardServer.ts"
import type { ListenAt } from "../../transport/flow/Listener.ts"
import type { Places } from "../../transport/flow/Places.ts"
import { Socks5Server } from "../../transport/flow/Socks5Server.ts"
import { adopt } from "../../transport/flow/TcpReader.ts"
import { type Forward, ListenFailed } from "./StreamMuxRpcs.ts"

type Watch = Pick<PumpOptions, "onFirst" | "onDone" | "meter">

/**
 * A connection that asks for a target. `begin` is called once the resource has accepted, and
 * `refuse` otherwise.
 */
export interface Request {
  readonly host: string
  readonly port: number
  /** Aborted when the application closes the connection before the answer. */
  readonly gone: AbortSignal
  /**
   * Starts to move bytes. Returns `false` if the application has gone; the caller must then abort
   * the stream.
   */
  readonly begin: (stream: FlowStream, fromStream: Uint8Array, watch: Watch) => boolean
  readonly refuse: (verdict: Verdict) => void
}

/** The open listeners. */
export interface Doors {
  /** Addresses of the listeners, for people. */
  readonly addresses: () => { readonly socks5: string | null; readonly forwards: ReadonlyArray<string> }
  /** Changes the listeners. If one cannot be opened, nothing changes. */
  readonly set: (wanted: Wanted) => Effect.Effect<void, ListenFailed>
}

/** Listeners that should be open. `socks5` is `null` if there should be none. */
export interface Wanted {
  /** Address of the SOCKS5 listener. `null` for none. */
  readonly socks5: ListenAt | null
  /** Forwards, each with its own listener. Empty for none. */
  readonly forwards: ReadonlyArray<Forward>
}

const ACCEPTED: Verdict = { code: "accepted", reason: "" }

/** Returns the address as text, with brackets around IPv6, or the path of a unix socket. */
export const render = (at: ListenAt): string => "path" in at ? at.path : renderHostPort(at)

/**
 * Opens every listener, or none. `local` is a unix socket for programs that embed this node. All
 * listeners close with the scope.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly socks5: ListenAt | null
  readonly local: ListenAt | null
  readonly forwards: ReadonlyArray<Forward>
  readonly places: Places
  readonly onRequest: (request: Request) => void
  /** Reports that a program spoke another protocol than SOCKS to the listener at `address`. */
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

  /**
   * Opens all new listeners before it closes any. A listener whose address stays is kept and leads
   * to the new target.
   */
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
  /** Address in the configuration. */
  readonly asked: string
  /** Address with the port that was bound. */
  readonly address: string
  readonly stop: () => Promise<void>
}
interface ForwardDoor extends Door {
  /** Target of new connections. It is read for each connection. */
  forward: Forward
}

/**
 * Key by which a forward is recognized: its address. Forwards on any free port also need
 * their targets for that.
 */
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
        host: HostName.normalize(door.forward.resource) ?? door.forward.resource,
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
