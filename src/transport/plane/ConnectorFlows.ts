/**
 * The connector's side of flows: checks a client's request, dials the resource, reports the result
 * and moves the bytes.
 */
import type net from "node:net"
import { type FlowKind, type Target, type Verdict, type VerdictCode } from "../../protocol/flow/FlowWire.ts"
import type { Resource } from "../../protocol/trust/Documents.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as Limits from "../../services/telemetry/Limits.ts"
import * as FlowStart from "../../session/FlowStart.ts"
import type { FlowStream } from "../../session/FlowStream.ts"
import * as Dialer from "../flow/Dialer.ts"
import { type FlowMeter, type FlowOutcome, pump as startPump } from "../flow/FlowPump.ts"
import { Places } from "../flow/Places.ts"

/** The grant's permission for a target. */
export interface Permit {
  readonly resource: Resource
  /** Name or address to dial; the connector resolves it. */
  readonly dialHost: string
}

/** A running flow and its target, which is checked again whenever the grant changes. */
export interface Flow {
  readonly target: Target
  readonly abort: () => void
}

/** Observer of one flow, from its Open to its end. */
export interface FlowWatch {
  readonly onVerdict: (verdict: Verdict) => void
  /** Called when the first bytes of the resource arrive. */
  readonly onFirst: () => void
  readonly onDone: (outcome: FlowOutcome) => void
  readonly meter?: FlowMeter
}

/** A flow that the client asks for. */
export interface Asked extends Target {
  /** The grant's name of the resource. `null` if the grant does not permit the target. */
  readonly resource: string | null
  /** W3C Trace Context of the client's span for this flow. `null` if the flow is not traced. */
  readonly traceparent: string | null
}

/** Options of {@link ConnectorFlows}. */
export interface ConnectorFlowsOptions {
  /** Public key of the client. Name lookups are limited for each client. */
  readonly client: NodeKey
  /** Whether the session's grant permits this target now. */
  readonly permit: (target: Target) => Permit | VerdictCode
  /** Called once, with the control stream. A second one is refused. */
  readonly onControl: (stream: FlowStream, early: Uint8Array) => void
  readonly onFlow: (asked: Asked) => FlowWatch
  readonly limits?: FlowLimits
  /** Function that reaches resources. Default: the one for the flow's kind. */
  readonly dial?: typeof Dialer.dial
}

/** Limits of the flows that a connector takes. */
export interface FlowLimits {
  /** Limit of the flows of the whole node. All its sessions share it. */
  readonly places: Places
  /**
   * Most streams of one session that are dialled or in use at once. One more gets the verdict
   * `too_many_flows`.
   */
  readonly flowsPerClient: number
}

/** How a connector reaches the resource of a flow, and moves the flow's bytes. */
interface Service {
  readonly dial: typeof Dialer.dial
  readonly pump: typeof startPump
}

/** How a connector serves each kind of flow. */
const SERVICES: Readonly<Record<FlowKind, Service>> = { tcp: { dial: Dialer.dial, pump: startPump } }

/** Default of {@link FlowLimits.flowsPerClient}. */
export const DEFAULT_FLOWS_PER_CLIENT = 1024

const NOT_PERMITTED: Partial<Record<VerdictCode, string>> = {
  denied: "the grant is for other nodes",
  grant_expired: "the grant has expired, and no newer one came",
  name_not_found: "the grant names no such resource",
  port_not_listed: "the resource does not list this port"
}

/** The flows of one session, on the connector. */
export class ConnectorFlows {
  readonly flows = new Set<Flow>()
  readonly #options: ConnectorFlowsOptions
  readonly #limits: FlowLimits
  #hasControl = false

  constructor(options: ConnectorFlowsOptions) {
    this.#options = options
    this.#limits = options.limits ?? { places: new Places(), flowsPerClient: DEFAULT_FLOWS_PER_CLIENT }
  }

  /** Takes a stream that the client opened. */
  onStream(stream: FlowStream): void {
    FlowStart.accept(stream, (incoming) => {
      const { kind } = incoming.open
      if (kind !== "control") return this.#onOpen(incoming, kind)
      if (this.#hasControl) return stream.abort(0)
      this.#hasControl = true
      this.#options.onControl(stream, incoming.rest)
    })
  }

  /** Ends every flow that `still` no longer permits. */
  recheck(still: (target: Target) => boolean): void {
    for (const flow of this.flows) if (!still(flow.target)) flow.abort()
  }

  #onOpen({ open, rest, stream }: FlowStart.Incoming, kind: FlowKind): void {
    const { host, port, traceparent } = open
    const asked: Target = { kind, host, port }
    const permit = this.#options.permit(asked)
    const resource = typeof permit === "string" ? null : permit.resource.name
    const watch = this.#options.onFlow({ ...asked, resource, traceparent })
    const refuse = (verdict: Verdict) => {
      FlowStart.reject(stream, verdict)
      watch.onVerdict(verdict)
    }
    if (typeof permit === "string") return refuse({ code: permit, reason: NOT_PERMITTED[permit] ?? "" })
    const { flowsPerClient, places } = this.#limits
    if (this.flows.size >= flowsPerClient) {
      Limits.met("flows_per_client")
      const remedy = "close idle ones, or raise limits.flowsPerClient at the connector"
      return refuse({ code: "too_many_flows", reason: `this session has ${flowsPerClient} flows already; ${remedy}` })
    }
    const dial = new Dialing()
    const occupant = { moved: () => dial.moved, cut: () => dial.cut() }
    const place = places.take(occupant, { isSettled: true, hasSocket: false })
    if (place === null) {
      return refuse({
        code: "too_many_flows",
        reason: "the connector has no room for another flow; run sallyport doctor there"
      })
    }
    const flow: Flow = { target: asked, abort: () => dial.abort() }
    this.flows.add(flow)
    const leave = () => {
      this.flows.delete(flow)
      place.leave()
    }
    dial.onAbort = () => {
      leave()
      refuse({ code: "denied", reason: "the permission ended" })
    }
    const { dialHost, resource: { allowLoopback } } = permit
    const target = { host: dialHost, port, allowLoopback, client: this.#options.client, onSocket: place.opened }
    dial.start(this.#options.dial ?? SERVICES[kind].dial, target, (result) => {
      if (result._tag === "Failed") {
        leave()
        return refuse({ code: result.code, reason: result.reason })
      }
      const unsent = FlowStart.admit(stream)
      watch.onVerdict({ code: "accepted", reason: "" })
      const pump = SERVICES[kind].pump({
        stream,
        socket: result.reader,
        fromStream: rest,
        fromSocket: unsent,
        ...(watch.meter && { meter: watch.meter }),
        onFirst: (way) => {
          if (way === "sent") watch.onFirst()
        },
        onDone: (outcome) => {
          leave()
          watch.onDone(outcome)
        }
      })
      dial.onAbort = () => pump.abort()
    })
  }
}

/** A dial that can be cancelled until its flow runs, and afterwards the flow. */
class Dialing {
  onAbort: () => void = () => undefined
  #cancel: (() => void) | null = null
  #socket: net.Socket | null = null
  #aborted = false

  start(dial: typeof Dialer.dial, target: Dialer.Target, done: (result: Dialer.Result) => void): void {
    this.#cancel = dial(target, (result) => {
      this.#cancel = null
      if (result._tag === "Connected") this.#socket = result.reader.socket
      if (!this.#aborted) done(result)
      else if (result._tag === "Connected") result.reader.socket.destroy()
    })
  }

  /** Bytes that the resource and this connector exchanged, both directions together. */
  get moved(): number {
    return this.#socket === null ? 0 : this.#socket.bytesRead + this.#socket.bytesWritten
  }

  /** Frees the socket at once, because another flow needs it. */
  cut(): void {
    this.#socket?.resetAndDestroy()
    this.abort()
  }

  abort(): void {
    if (this.#aborted) return
    this.#aborted = true
    this.#cancel?.()
    this.onAbort()
  }
}
