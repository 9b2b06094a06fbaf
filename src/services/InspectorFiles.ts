/** The inspector's page as the admin server gives it out; `scripts/build.mjs` puts it in `dist/inspector`. */
import { Effect } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { AdminError } from "./AdminError.ts"
import { type Routes, Text } from "./AdminServer.ts"

const PACKAGE_ROOT = fileURLToPath(new URL("../", import.meta.url)).replace(/(src|dist)\/$/, "")

const file = (name: string, contentType: string) => () =>
  Effect.tryPromise({
    try: () => readFile(join(PACKAGE_ROOT, "dist", "inspector", name), "utf8"),
    catch: () => new AdminError({ code: "not_found", message: `dist/inspector/${name} is missing; run npm run build` })
  }).pipe(Effect.map((text) => new Text(text, `${contentType}; charset=utf-8`)))

export const routes: Routes = {
  "GET /": file("index.html", "text/html"),
  "GET /inspector.js": file("inspector.js", "text/javascript"),
  "GET /inspector.css": file("inspector.css", "text/css")
}
