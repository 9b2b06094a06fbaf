/** Files for browsers, which `scripts/build.mjs` puts into `dist`. */
import { Effect, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** Error when a built file does not exist. `message` names the command that builds it. */
export class NotBuilt extends Schema.TaggedError<NotBuilt>()("NotBuilt", { message: Schema.String }) {}

/**
 * Folder of the package. The result is the same from the bundles in `dist` and from the sources in
 * `src`.
 */
const PACKAGE_ROOT = fileURLToPath(new URL("../", import.meta.url)).replace(/(src\/services|dist)\/$/, "")

/** Reads a built file. `name` is relative to `dist`. */
export const read = (name: string): Effect.Effect<Buffer, NotBuilt> =>
  Effect.tryPromise({
    try: () => readFile(join(PACKAGE_ROOT, "dist", name)),
    catch: () => new NotBuilt({ message: `dist/${name} is missing; run npm run build` })
  })
