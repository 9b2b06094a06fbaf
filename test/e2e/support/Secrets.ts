/** What must not be read anywhere else: everything in a state directory that looks like a key. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** Base64, of 30 bytes or more: keys, and lines of PEM. */
const KEY = /[\w+/-]{40,}={0,2}/g

export const keysIn = (stateDir: string): ReadonlyArray<string> => {
  const files = readdirSync(stateDir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const texts = files.map(({ name, parentPath }) => readFileSync(join(parentPath, name), "latin1"))
  return [...new Set(texts.flatMap((text) => text.match(KEY) ?? []))]
}
