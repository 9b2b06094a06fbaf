// What a page has to load for sallyport/browser; fails above the limit. `scripts/build.mjs --analyze` says what it is made of.
import { readFileSync } from "node:fs"
import { gzipSync } from "node:zlib"

/** Compressed, as it travels. Effect itself is most of it. */
const MAX_GZIP_BYTES = 140_000

const script = readFileSync(new URL("../dist/browser/index.js", import.meta.url))
const gzipped = gzipSync(script, { level: 9 }).length
console.log(`sallyport/browser: ${script.length} bytes, ${gzipped} gzipped; at most ${MAX_GZIP_BYTES}`)
if (gzipped > MAX_GZIP_BYTES) process.exit(1)
