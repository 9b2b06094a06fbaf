/** A collector of OTLP over HTTP, as far as this program speaks it: JSON (opentelemetry-proto, "JSON Protobuf Encoding"). */
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"

export interface Span {
  /** `service.name` and `thread.name`. */
  readonly service: string
  readonly thread: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  readonly name: string
  readonly startMs: number
  readonly endMs: number
  readonly attributes: Readonly<Record<string, unknown>>
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: Readonly<Record<string, unknown>> }>
  readonly links: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
}

type KeyValues = ReadonlyArray<{ readonly key: string; readonly value: Readonly<Record<string, unknown>> }>
type OtlpSpan = Omit<Span, "attributes" | "events"> & {
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes: KeyValues
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: KeyValues }>
}
type Traces = {
  readonly resourceSpans: ReadonlyArray<{
    readonly resource: { readonly attributes: KeyValues }
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<OtlpSpan> }>
  }>
}

/** A number, or a histogram's count. */
export interface Point {
  readonly service: string
  readonly name: string
  readonly unit: string
  readonly labels: Readonly<Record<string, unknown>>
  readonly value: number
  /** Epoch ms. */
  readonly startMs: number
  readonly endMs: number
}

type DataPoint = {
  readonly attributes: KeyValues
  readonly startTimeUnixNano: string
  readonly timeUnixNano: string
  readonly asDouble?: number
  readonly count?: string
  readonly bucketCounts?: ReadonlyArray<string>
  readonly explicitBounds?: ReadonlyArray<number>
}
type Data = { readonly dataPoints: ReadonlyArray<DataPoint> }
type MetricsRequest = {
  readonly resourceMetrics: ReadonlyArray<{
    readonly resource: { readonly attributes: KeyValues }
    readonly scopeMetrics: ReadonlyArray<{
      readonly metrics: ReadonlyArray<
        {
          readonly name: string
          readonly unit: string
          readonly sum?: Data
          readonly gauge?: Data
          readonly histogram?: Data
        }
      >
    }>
  }>
}

export class Collector {
  readonly spans: Array<Span> = []
  /** Of all exports, in the order in which they came. */
  readonly points: Array<Point> = []
  /** As they came. */
  readonly bodies: Array<string> = []
  /** The same, with the path of each. */
  readonly requests: Array<{ readonly path: string; readonly body: string }> = []
  readonly #server: Server

  static async start(): Promise<Collector> {
    const collector = new Collector()
    await new Promise<void>((listening) => collector.#server.listen(0, "127.0.0.1", listening))
    return collector
  }

  private constructor() {
    this.#server = createServer((request, response) => {
      let body = ""
      request.setEncoding("utf8").on("data", (part: string) => (body += part))
      request.on("end", () => {
        this.bodies.push(body)
        this.requests.push({ path: request.url ?? "", body })
        if (request.url === "/v1/metrics") this.points.push(...pointsOf(JSON.parse(body) as MetricsRequest))
        if (request.url === "/v1/traces") this.spans.push(...spansOf(JSON.parse(body) as Traces))
        response.setHeader("content-type", "application/json").end("{}")
      })
    })
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  stop(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }
}

const spansOf = ({ resourceSpans }: Traces): ReadonlyArray<Span> =>
  resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const about = valuesOf(resource.attributes)
    return scopeSpans.flatMap(({ spans }) => spans).map((span): Span => ({
      service: String(about["service.name"]),
      thread: String(about["thread.name"]),
      traceId: span.traceId,
      spanId: span.spanId,
      parentSpanId: span.parentSpanId,
      name: span.name,
      startMs: Number(BigInt(span.startTimeUnixNano) / 1000n) / 1000,
      endMs: Number(BigInt(span.endTimeUnixNano) / 1000n) / 1000,
      attributes: valuesOf(span.attributes),
      events: span.events.map(({ attributes, name }) => ({ name, attributes: valuesOf(attributes) })),
      links: span.links
    }))
  })

const pointsOf = ({ resourceMetrics }: MetricsRequest): ReadonlyArray<Point> =>
  resourceMetrics.flatMap(({ resource, scopeMetrics }) => {
    const service = String(valuesOf(resource.attributes)["service.name"])
    return scopeMetrics.flatMap(({ metrics }) => metrics).flatMap(({ gauge, histogram, name, sum, unit }) =>
      (sum ?? gauge ?? histogram)?.dataPoints.map((point): Point => ({
        service,
        name,
        unit,
        labels: valuesOf(point.attributes),
        value: point.asDouble ?? Number(point.count),
        startMs: Number(BigInt(point.startTimeUnixNano) / 1_000_000n),
        endMs: Number(BigInt(point.timeUnixNano) / 1_000_000n)
      })) ?? []
    )
  })

const valuesOf = (pairs: KeyValues): Readonly<Record<string, unknown>> =>
  Object.fromEntries(pairs.map(({ key, value }) => [key, Object.values(value)[0]]))

/** A trace as people read it, for whoever reads a failed run. */
export const draw = (spans: ReadonlyArray<Span>): string => {
  const from = Math.min(...spans.map(({ startMs }) => startMs))
  const known = new Set(spans.map(({ spanId }) => spanId))
  const under = (parent: string | undefined, depth: number): ReadonlyArray<string> =>
    spans
      .filter((span) => (known.has(span.parentSpanId ?? "") ? span.parentSpanId : undefined) === parent)
      .toSorted((left, right) => left.startMs - right.startMs)
      .flatMap((span) => {
        const at = (span.startMs - from).toFixed(1).padStart(8)
        const took = (span.endMs - span.startMs).toFixed(1).padStart(7)
        const line = `${at} +${took} ms  ${"  ".repeat(depth)}${span.name}  [${span.service}/${span.thread}]`
        return [line].concat(under(span.spanId, depth + 1))
      })
  return under(undefined, 0).join("\n")
}
