/** `fetch` over a flow: HTTP/1.1 (RFC 9112), one request per flow. */
import { HTTPParser } from "@achingbrain/http-parser-js"
import type { Flow } from "./Flow.ts"

export interface Target {
  readonly host: string
  readonly port: number
}

/** Returns the host and port of a URL. Throws a `TypeError` unless it is an `http:` URL. */
export const targetOf = (url: URL): Target => {
  if (url.protocol === "https:") {
    throw new TypeError(
      "https: is not fetched through a flow, since a page has no TLS of its own; use http:, the flow is encrypted end to end"
    )
  }
  if (url.protocol !== "http:") throw new TypeError(`${url.protocol} cannot be fetched; use http:`)
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port: url.port === "" ? 80 : Number(url.port) }
}

/**
 * Sends a request over a flow and resolves when the head of the response is there. Rejects with a
 * `TypeError` if the answer is not HTTP, if the flow is reset before the head is complete, or with
 * the reason of the request's signal when that aborts.
 */
export const fetchOver = async (flow: Flow, request: Request): Promise<Response> => {
  const aborted = new Promise<never>((_, reject) => {
    const abort = () => {
      flow.abort()
      reject(request.signal.reason instanceof Error ? request.signal.reason : new DOMException("aborted", "AbortError"))
    }
    if (request.signal.aborted) abort()
    else request.signal.addEventListener("abort", abort, { once: true })
  })
  aborted.catch(() => undefined)
  const sent = send(flow.writable, request)
  sent.catch(() => undefined) // a server may answer before it has read everything
  return await Promise.race([answerOf(flow, request), aborted])
}

/** Request headers that a page may not set, because they describe the connection. */
const OWN_HEADERS = new Set([
  "connection",
  "content-length",
  "host",
  "transfer-encoding",
  "keep-alive",
  "upgrade",
  "te"
])

const send = async (writable: WritableStream<Uint8Array>, request: Request): Promise<void> => {
  const writer = writable.getWriter()
  const url = new URL(request.url)
  const body = request.body === null ? null : new Uint8Array(await request.arrayBuffer())
  const lines = [
    `${request.method} ${url.pathname}${url.search} HTTP/1.1`,
    `host: ${url.host}`,
    "connection: close",
    ...(body === null ? [] : [`content-length: ${body.length}`]),
    ...[...request.headers].filter(([name]) => !OWN_HEADERS.has(name)).map(([name, value]) => `${name}: ${value}`)
  ]
  await writer.write(new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`))
  if (body !== null && body.length > 0) await writer.write(body)
  // Left open: some servers treat a client that has half-closed the connection as gone.
  writer.releaseLock()
}

/** Statuses with which a `Response` may not have a body. */
const EMPTY = new Set([204, 205, 304])

const answerOf = (flow: Flow, request: Request): Promise<Response> =>
  new Promise((resolve, reject) => {
    const reader = flow.readable.getReader()
    const parser = new HTTPParser(HTTPParser.RESPONSE)
    const parts: Array<Uint8Array<ArrayBuffer>> = []
    const seen = { head: false, end: false }
    const fail = (error: unknown): TypeError => {
      flow.abort()
      const failed = new TypeError(`the answer is no HTTP (${error instanceof Error ? error.message : String(error)})`)
      reject(failed)
      return failed
    }
    const next = async (): Promise<void> => {
      const { done, value } = await reader.read()
      const error = done ? parser.finish() : parser.execute(value)
      if (error instanceof Error) throw fail(error)
      if (done && !seen.end) throw fail(new Error("it ended too early"))
    }
    parser[HTTPParser.kOnHeadersComplete] = (
      info: { statusCode: number; statusMessage: string; headers: Array<string> }
    ) => {
      const { headers, statusCode, statusMessage } = info
      if (statusCode >= 100 && statusCode < 200) return 0
      seen.head = true
      const given = new Headers()
      for (let at = 0; at + 1 < headers.length; at += 2) given.append(headers[at]!, headers[at + 1]!)
      const bodiless = request.method === "HEAD" || EMPTY.has(statusCode)
      const body = bodiless ? null : new ReadableStream<Uint8Array<ArrayBuffer>>({
        pull: async (controller) => {
          while (parts.length === 0 && !seen.end) await next()
          for (const part of parts.splice(0)) controller.enqueue(part)
          if (seen.end) {
            controller.close()
            flow.abort()
          }
        },
        cancel: () => flow.abort()
      })
      if (bodiless) flow.abort()
      try {
        resolve(new Response(body, { status: statusCode, statusText: statusMessage, headers: given }))
      } catch (error) {
        fail(error)
      }
      return bodiless ? 1 : 0
    }
    parser[HTTPParser.kOnBody] = (bytes: Uint8Array, offset: number, length: number) => {
      parts.push(bytes.slice(offset, offset + length))
    }
    parser[HTTPParser.kOnMessageComplete] = () => {
      seen.end ||= seen.head
    }
    const untilHead = async () => {
      while (!seen.head) await next()
    }
    untilHead().catch(reject)
  })
