/** The page for people at the relay's own address, `/app`; its sources are `src/app`. */
import { Effect } from "effect"
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import * as BuiltFile from "./BuiltFile.ts"

/**
 * The page runs its own script only, and reaches the relay only. `unsafe-inline` is for the styles of pages that it shows as stills,
 * which inherit this policy, and could not reach out with them.
 */
const CONTENT_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src blob: data:; " +
  "font-src data:; connect-src 'self' wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
const HEADERS = {
  "cache-control": "no-cache",
  "content-encoding": "gzip", // no browser that could run it lacks that
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

/** Told in the page: a browser that tried in vain would complain on its console. */
const WITHOUT_HTTP3 = "<meta name=\"http3\" content=\"no\">"
const WITH_HTTP3 = "<meta name=\"http3\" content=\"yes\">"

/** What is at a path; read and compressed once, held in memory (a quarter of a megabyte). `http3`: whether this relay has it. */
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
