/** Files for browsers that `scripts/build.mjs` has made, in `dist`. */
import { Effect, Schema } from "effect"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

/** The file is not there. */
export class NotBuilt extends Schema.TaggedError<NotBuilt>()("NotBuilt", { message: Schema.String }) {}

/** From the bundles as from the sources: both are in a folder of the package. */
const PACKAGE_ROOT = fileURLToPath(new URL("../", import.meta.url)).replace(/(src|dist)\/$/, "")

/** `name` counts from `dist`. */
export const read = (name: string): Effect.Effect<Buffer, NotBuilt> =>
  Effect.tryPromise({
    try: () => readFile(join(PACKAGE_ROOT, "dist", name)),
    catch: () => new NotBuilt({ message: `dist/${name} is missing; run npm run build` })
  })
