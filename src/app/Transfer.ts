/** Fetches something from a resource and reports the progress. */
import type { Connection } from "../browser/index.ts"

export interface Fetched {
  /** Address from which the body came, after all redirects. */
  readonly url: URL
  readonly status: string
  /** Media type in lower case, without parameters. Empty if the resource named none. */
  readonly type: string
  /** Charset that the content type names, or `utf-8`. */
  readonly charset: string
  readonly body: Blob
  readonly ms: number
}

export interface Progress {
  readonly bytes: number
  /** Length of the whole body, in bytes. `null` if the resource does not say it. */
  readonly total: number | null
}

/** Most redirects that are followed for one address. */
const MAX_REDIRECTS = 8
/** Size at which parts are put together, so that the browser can keep a large file on its disk. */
const PART_BYTES = 8 * 1024 * 1024

/** Options of {@link load}. */
export interface Options {
  readonly signal: AbortSignal
  readonly onProgress?: (progress: Progress) => void
  /** Largest body that is accepted, in bytes. A larger one is given up. */
  readonly maxBytes?: number
}

/**
 * Fetches a URL and follows its redirects. Rejects as `Connection.fetch` does, and if the body is
 * too large or the redirects do not end.
 */
export const load = async (connection: Connection, from: URL, options: Options): Promise<Fetched> => {
  const began = performance.now()
  let url = from
  for (let hops = 0; hops <= MAX_REDIRECTS; hops += 1) {
    const answer = await connection.fetch(url, { signal: options.signal })
    const next = answer.status >= 300 && answer.status < 400 ? answer.headers.get("location") : null
    if (next === null) {
      const [type = "", ...parameters] = (answer.headers.get("content-type") ?? "").split(";")
      const charset = parameters.map((part) => /^\s*charset="?([^";]+)/i.exec(part)?.[1]).find((it) => it !== undefined)
      const body = await bodyOf(answer, options)
      return {
        url,
        status: `${answer.status} ${answer.statusText}`.trim(),
        type: type.trim().toLowerCase(),
        charset: charset ?? "utf-8",
        body,
        ms: performance.now() - began
      }
    }
    await answer.body?.cancel()
    url = new URL(next, url)
  }
  throw new Error(`${from.href} sends from one address to another without an end`)
}

const bodyOf = async (answer: Response, { maxBytes = Infinity, onProgress, signal }: Options): Promise<Blob> => {
  const length = Number(answer.headers.get("content-length") ?? Number.NaN)
  const total = Number.isSafeInteger(length) ? length : null
  let whole = new Blob()
  let parts: Array<Uint8Array<ArrayBuffer>> = []
  let waiting = 0
  const gather = () => {
    whole = new Blob([whole, ...parts])
    parts = []
    waiting = 0
  }
  const reader = answer.body?.getReader()
  for (let got = await reader?.read(); got?.done === false; got = await reader?.read()) {
    signal.throwIfAborted()
    parts.push(new Uint8Array(got.value))
    waiting += got.value.length
    const bytes = whole.size + waiting
    if (bytes > maxBytes) {
      await reader?.cancel()
      throw new Error(`more than ${maxBytes} bytes; download it instead`)
    }
    if (waiting >= PART_BYTES) gather()
    onProgress?.({ bytes, total })
  }
  gather()
  return whole
}

/** Saves a file where the browser keeps downloads. */
export const save = ({ body, url }: Fetched): void => {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(body)
  link.download = decodeURIComponent(url.pathname.split("/").findLast((part) => part !== "") ?? url.hostname)
  link.click()
  // The browser has begun to copy it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}
