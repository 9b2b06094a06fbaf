/** The local listeners of a node, whatever their kind, and the handling of their connections. */
import { Effect } from "effect"
import type { Socket } from "node:net"
import * as HostName from "../../protocol/bytes/HostName.ts"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type { Target, Verdict } from "../../protocol/flow/FlowWire.ts"
import type { Kind, ListenAt, LocalListener, Of } from "../../protocol/flow/LocalListener.ts"
import type { FailReason } from "../../protocol/flow/Socks5.ts"
import * as ListenCheck from "../../services/network/ListenCheck.ts"
import type { FlowStream } from "../../session/FlowStream.ts"
import { pump as startPump, type PumpOptions } from "../../transport/flow/FlowPump.ts"
import { ForwardServer } from "../../transport/flow/ForwardServer.ts"
import * as LocalFlow from "../../transport/flow/LocalFlow.ts"
import type { Places } from "../../transport/flow/Places.ts"
import { Socks5Server } from "../../transport/flow/Socks5Server.ts"
import { adopt } from "../../transport/flow/TcpReader.ts"
import { ListenFailed, type OpenListener } from "./StreamMuxRpcs.ts"

type Watch = Pick<PumpOptions, "onFirst" | "onDone" | "meter">

/**
 * A connection that asks for a target. `begin` is called once the resource has accepted, and
 * `refuse` otherwise.
 */
export interface Request extends Target {
  /** Address of the forward that accepted the connection. `null` if another listener did. */
  readonly forward: string | null
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
export interface Listeners {
  /** Lists the open listeners in the order in which they were asked for. */
  readonly list: () => ReadonlyArray<OpenListener>
  /** Changes the listeners. If one cannot be opened, nothing changes. */
  readonly set: (wanted: ReadonlyArray<LocalListener>) => Effect.Effect<void, ListenFailed>
}

/** Parts of the node that every listener uses. */
export interface Node {
  readonly places: Places
  readonly onRequest: (request: Request) => void
  /** Reports that a program spoke another protocol than SOCKS to the listener at `address`. */
  readonly onForeign: (reason: FailReason, address: string) => void
}

/** How listeners of one kind are opened. */
interface Opener<K extends Kind> {
  /** Name of the listener in errors. */
  readonly what: (listener: Of<K>) => string
  /** Key by which a listener is recognized when the configuration has changed. */
  readonly key: (listener: Of<K>) => string
  /** Makes a closed server. `now` returns the listener as it is configured at the moment. */
  readonly server: (now: () => Of<K>, node: Node) => {
    /** Resolves with the address that was bound, or rejects with the system's error. */
    readonly start: () => Promise<ListenAt>
    readonly stop: () => Promise<void>
  }
}

const ACCEPTED: Verdict = { code: "accepted", reason: "" }

/** Returns the address as text, with brackets around IPv6, or the path of a unix socket. */
export const render = (at: ListenAt): string => "path" in at ? at.path : renderHostPort(at)

/** Opener of a SOCKS listener. `carry` returns the pump's end of an accepted socket. */
const socksBy = (carry: (socket: Socket) => PumpOptions["socket"]) => ({
  what: () => "SOCKS5",
  key: ({ at }: LocalListener) => render(at),
  server: (now: () => LocalListener, { onForeign, onRequest, places }: Node) => {
    const { at } = now()
    return new Socks5Server({
      listen: at,
      places,
      onRefused: (reason) => onForeign(reason, render(at)),
      connect: ({ answer, gone, socket, target }) =>
        onRequest({
          kind: "tcp",
          host: target.host,
          port: target.port,
          forward: null,
          gone,
          begin: (stream, fromStream, watch) => {
            const early = answer(ACCEPTED)
            return early !== null && pump({ stream, socket: carry(socket), fromStream, fromSocket: early, ...watch })
          },
          refuse: answer
        })
    })
  }
})

const forward: Opener<"Forward"> = {
  what: ({ port, resource }) => `the forward to ${resource}:${port}`,
  // Forwards on any free port have nothing but their targets to tell them apart.
  key: ({ at, port, resource }) => "port" in at && at.port === 0 ? `${render(at)} ${resource} ${port}` : render(at),
  server: (now, { onRequest, places }) => {
    let address = ""
    const server = new ForwardServer({
      listen: now().at,
      places,
      connect: ({ answer, gone, reader }) =>
        onRequest({
          kind: now().protocol,
          host: HostName.normalize(now().resource) ?? now().resource,
          port: now().port,
          forward: address,
          gone,
          begin: (stream, fromStream, watch) =>
            answer(ACCEPTED) && pump({ stream, socket: reader, fromStream, ...watch }),
          refuse: answer
        })
    })
    const start = async () => {
      const at = await server.start()
      address = render(at)
      return at
    }
    return { start, stop: () => server.stop() }
  }
}

const OPENERS: { readonly [K in Kind]: Opener<K> } = {
  Socks5: socksBy(adopt),
  Forward: forward,
  InProcess: socksBy(LocalFlow.atNode)
}

const openerOf = <K extends Kind>(listener: Of<K>): Opener<K> => OPENERS[listener._tag]

/** One open listener. */
interface Open {
  /** The listener as it is configured at the moment. New connections read their target from it. */
  listener: LocalListener
  /** Address with the port that was bound. */
  readonly address: string
  readonly stop: () => Promise<void>
}

/** Opens every listener of `wanted`, or none. All listeners close with the scope. */
export const make = Effect.fnUntraced(function*(wanted: ReadonlyArray<LocalListener>, node: Node) {
  let running: ReadonlyMap<string, Open> = new Map()
  yield* Effect.addFinalizer(() => stopAll(running.values()))

  /**
   * Opens all new listeners before it closes any. A listener whose address stays is kept and leads
   * to the new target.
   */
  const set = Effect.fnUntraced(function*(wanted: ReadonlyArray<LocalListener>) {
    const opened: Array<Open> = []
    const next = yield* Effect.gen(function*() {
      const next = new Map<string, Open>()
      for (const listener of wanted) {
        const key = keyOf(listener)
        if (next.has(key)) continue
        const kept = running.get(key)
        const at = kept ?? (yield* open(listener, node))
        if (kept === undefined) opened.push(at)
        next.set(key, at)
      }
      return next
    }).pipe(Effect.onError(() => stopAll(opened)))
    const closed = [...running].flatMap(([key, one]) => next.has(key) ? [] : [one])
    running = next
    for (const listener of wanted) next.get(keyOf(listener))!.listener = listener
    yield* stopAll(closed)
  })
  yield* set(wanted)
  return {
    list: () => Array.from(running.values(), ({ address, listener: { name } }) => ({ name, address })),
    set
  } satisfies Listeners
})

const stopAll = (listeners: Iterable<Open>) =>
  Effect.promise(() => Promise.all(Array.from(listeners, ({ stop }) => stop())))

const keyOf = <K extends Kind>(listener: Of<K>): string => `${listener._tag} ${openerOf(listener).key(listener)}`

const open = <K extends Kind>(listener: Of<K>, node: Node): Effect.Effect<Open, ListenFailed> =>
  Effect.suspend(() => {
    const { server: make, what } = openerOf(listener)
    const one = { listener, address: "", stop: () => server.stop() }
    const server = make(() => one.listener, node)
    return Effect.tryPromise({
      try: () => server.start(),
      catch: (cause) => {
        const why = remedy(listener.at, cause)
        return new ListenFailed({ message: `${what(listener)} cannot listen on ${render(listener.at)}: ${why}` })
      }
    }).pipe(Effect.map((at) => Object.assign(one, { address: render(at) })))
  })

const pump = (options: PumpOptions): true => {
  startPump(options)
  return true
}

const remedy = (at: ListenAt, cause: unknown): string => {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause)
  return ListenCheck.remedy(code, "port" in at ? at.port : 0, "tcp")
}
