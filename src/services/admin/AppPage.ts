/** The page for people at the relay's own address, under `/app`. Its sources are in `src/app`. */
import { Effect } from "effect"
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import * as BuiltFile from "./BuiltFile.ts"

/**
 * Content security policy of the page: it runs only its own script and reaches only the relay.
 * `unsafe-inline` is for the styles of pages that it shows as stills. Those inherit this policy,
 * and their styles cannot reach any other host.
 */
const CONTENT_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src blob: data:; " +
  "font-src data:; connect-src 'self' wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
const HEADERS = {
  "cache-control": "no-cache",
  "content-encoding": "gzip", // every browser that can run the page supports it
  "content-security-policy": CONTENT_POLICY,
  "cross-origin-opener-policy": "same-origin",
  "referrer-policy": "no-referrer"
}
const PAGE = { contentType: "text/html; charset=utf-8", file: "index.html" }
const FILES: Readonly<Record<string, { readonly contentType: string; readonly file: string }>> = {
  "/app": PAGE,
  "/app/": PAGE,
  "/app/app.js": { contentType: "text/javascript; charset=utf-8", file: "app.js" },
  "/app/app.css": { contentType: "text/css; charset=utf-8", file: "app.css" }
}

const pack = promisify(gzip)

/**
 * Mark in the page of a relay without HTTP/3. Without it, a browser would try HTTP/3 in vain and
 * log a console error.
 */
const WITHOUT_HTTP3 = "<meta name=\"http3\" content=\"no\">"
/** Mark in the page of a relay with HTTP/3. */
const WITH_HTTP3 = "<meta name=\"http3\" content=\"yes\">"

/**
 * Loads the page's files and returns a function from a path to its content. Files are read and
 * compressed once and stay in memory (about 250 KB). `http3` says whether this relay supports
 * HTTP/3.
 */
export const load = ({ http3 }: { readonly http3: boolean }) =>
  Effect.forEach(
    Object.entries(FILES),
    ([path, { contentType, file }]) =>
      BuiltFile.read(`app/${file}`).pipe(
        Effect.map((bytes) =>
          http3 && file === PAGE.file
            ? Buffer.from(Buffer.from(bytes).toString().replace(WITHOUT_HTTP3, WITH_HTTP3))
            : bytes
        ),
        Effect.flatMap((bytes) => Effect.promise(() => pack(bytes))),
        Effect.map((body) => [path, { contentType, body, headers: HEADERS }] as const)
      )
  ).pipe(
    Effect.catchAll(({ message }) => Effect.as(Effect.logWarning(`no page at /app: ${message}`), [])),
    Effect.map((pages) => {
      const at = new Map(pages)
      return (path: string) => at.get(path)
    })
  )
