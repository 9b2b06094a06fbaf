/** The connector's end of flows: checks what the client asks for, dials the resource, answers with the truth, moves the bytes. */
import type { Resource } from "../../protocol/Documents.ts"
import { type Verdict, type VerdictCode } from "../../protocol/FlowWire.ts"
import type { NodeKey } from "../../protocol/NodeKey.ts"
import * as Dialer from "../flow/Dialer.ts"
import { type FlowMeter, type FlowOutcome, pump as startPump } from "../flow/FlowPump.ts"
import * as FlowStart from "../flow/FlowStart.ts"
import type { FlowStream } from "../flow/FlowStream.ts"

export interface Permit {
  readonly resource: Resource
  /** To be resolved here. */
  readonly dialHost: string
}

/** A flow that runs, and what permitted it: asked again whenever the grant changes. */
export interface Flow {
  readonly host: string
  readonly port: number
  readonly abort: () => void
}

/** Who follows one flow from its Open to its end. */
export interface FlowWatch {
  readonly onVerdict: (verdict: Verdict) => void
  /** The resource's first bytes. */
  readonly onFirst: () => void
  readonly onDone: (outcome: FlowOutcome) => void
  readonly meter?: FlowMeter
}

export interface Asked {
  readonly host: string
  readonly port: number
  /** What the grant calls it; null: the grant lists no such target. */
  readonly resource: string | null
  /** Ties it to the client's trace. */
  readonly traceparent: string | null
}

export interface ConnectorFlowsOptions {
  /** The other end, by which lookups of names are limited. */
  readonly client: NodeKey
  /** Whether the session's grant permits this, now. */
  readonly permit: (host: string, port: number) => Permit | VerdictCode
  /** The control stream, once. A second one is refused. */
  readonly onControl: (stream: FlowStream, early: Uint8Array) => void
  readonly onFlow: (asked: Asked) => FlowWatch
}

/** Streams of one session that are being dialled or pumped at once; one more is answered `too_many_flows`. */
export const MAX_FLOWS = 1024

const NOT_PERMITTED: Partial<Record<VerdictCode, string>> = {
  denied: "the grant is for other nodes",
  grant_expired: "the grant has expired, and no newer one came",
  name_not_found: "the grant names no such resource",
  port_not_listed: "the resource does not list this port"
}

export class ConnectorFlows {
  readonly flows = new Set<Flow>()
  readonly #options: ConnectorFlowsOptions
  #hasControl = false

  constructor(options: ConnectorFlowsOptions) {
    this.#options = options
  }

  /** A stream that the client opened. */
  onStream(stream: FlowStream): void {
    FlowStart.accept(stream, (incoming) => {
      if (incoming.open.kind === "tcp") return this.#onOpen(incoming)
      if (this.#hasControl) return stream.abort(0)
      this.#hasControl = true
      this.#options.onControl(stream, incoming.rest)
    })
  }

  /** Cuts every flow that `still` does not permit any more. */
  recheck(still: (host: string, port: number) => boolean): void {
    for (const flow of this.flows) if (!still(flow.host, flow.port)) flow.abort()
  }

  #onOpen({ open, rest, stream }: FlowStart.Incoming): void {
    const { host, port, traceparent } = open
    const permit = this.#options.permit(host, port)
    const resource = typeof permit === "string" ? null : permit.resource.name
    const watch = this.#options.onFlow({ host, port, resource, traceparent })
    const refuse = (verdict: Verdict) => {
      FlowStart.reject(stream, verdict)
      watch.onVerdict(verdict)
    }
    if (typeof permit === "string") return refuse({ code: permit, reason: NOT_PERMITTED[permit] ?? "" })
    if (this.flows.size >= MAX_FLOWS) {
      return refuse({ code: "too_many_flows", reason: `this session has ${MAX_FLOWS} flows already` })
    }
    const dial = new Dialing()
    const flow: Flow = { host, port, abort: () => dial.abort() }
    this.flows.add(flow)
    dial.onAbort = () => {
      this.flows.delete(flow)
      refuse({ code: "denied", reason: "the permission ended" })
    }
    const { dialHost, resource: { allowLoopback } } = permit
    dial.start({ host: dialHost, port, allowLoopback, client: this.#options.client }, (result) => {
      if (result._tag === "Failed") {
        this.flows.delete(flow)
        return refuse({ code: result.code, reason: result.reason })
      }
      const unsent = FlowStart.admit(stream)
      watch.onVerdict({ code: "accepted", reason: "" })
      const pump = startPump({
        stream,
        socket: result.reader,
        fromStream: rest,
        fromSocket: unsent,
        ...(watch.meter && { meter: watch.meter }),
        onFirst: (way) => {
          if (way === "sent") watch.onFirst()
        },
        onDone: (outcome) => {
          this.flows.delete(flow)
          watch.onDone(outcome)
        }
      })
      dial.onAbort = () => pump.abort()
    })
  }
}

/** A dial that can be given up until its flow runs, and the flow after it. */
class Dialing {
  onAbort: () => void = () => undefined
  #cancel: (() => void) | null = null
  #aborted = false

  start(target: Dialer.Target, done: (result: Dialer.Result) => void): void {
    this.#cancel = Dialer.dial(target, (result) => {
      this.#cancel = null
      if (!this.#aborted) done(result)
      else if (result._tag === "Connected") result.reader.socket.destroy()
    })
  }

  abort(): void {
    if (this.#aborted) return
    this.#aborted = true
    this.#cancel?.()
    this.onAbort()
  }
}
