/**
 * Serves the inspector's page through the admin server. `scripts/build.mjs` puts the files in
 * `dist/inspector`.
 */
import { Effect } from "effect"
import { AdminError } from "./AdminError.ts"
import { type Routes, Text } from "./AdminServer.ts"
import * as BuiltFile from "./BuiltFile.ts"

const file = (name: string, contentType: string) => () =>
  BuiltFile.read(`inspector/${name}`).pipe(
    Effect.mapBoth({
      onFailure: ({ message }) => new AdminError({ code: "not_found", message }),
      onSuccess: (bytes) => new Text(bytes.toString("utf8"), `${contentType}; charset=utf-8`)
    })
  )

export const routes: Routes = {
  "GET /": file("index.html", "text/html"),
  "GET /inspector.js": file("inspector.js", "text/javascript"),
  "GET /inspector.css": file("inspector.css", "text/css")
}
