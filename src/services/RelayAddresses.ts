/** What a relay's name meant last, kept in the state directory: with DNS dead, a node that starts anew still finds its relay. */
import { Duration, Effect, Option, Schema } from "effect"
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import { join } from "node:path"
import * as StateFile from "./StateFile.ts"

export const FILE = "relay-addresses.json"
/** A resolver that needs longer is dead, or as good as that. */
const PATIENCE = Duration.seconds(2)
const MAX_ADDRESSES = 8

const File = Schema.parseJson(Schema.Struct({
  version: Schema.Literal(1),
  host: Schema.String,
  addresses: Schema.Array(Schema.String.pipe(Schema.filter((text) => isIP(text) !== 0))).pipe(
    Schema.maxItems(MAX_ADDRESSES)
  )
}))

/** Of this name; none: it was never found, or the file is of another name or damaged. */
export const known = (stateDir: string, host: string): Effect.Effect<ReadonlyArray<string>> =>
  StateFile.read(join(stateDir, FILE)).pipe(
    Effect.flatten,
    Effect.flatMap(({ text }) => Schema.decodeUnknown(File)(text)),
    Effect.map((file) => (file.host === host ? file.addresses : [])),
    Effect.orElseSucceed(() => [])
  )

/** Every address of the name, IPv4 first, as DNS says or else as it said last. None, told in the log, when neither knows it. */
export const resolve = Effect.fnUntraced(function*(stateDir: string, host: string) {
  if (isIP(host) !== 0) return [host]
  const before = yield* known(stateDir, host)
  const asked = yield* Effect.tryPromise(() => lookup(host, { all: true, order: "ipv4first" })).pipe(
    Effect.timeout(PATIENCE),
    Effect.map((found) => found.slice(0, MAX_ADDRESSES).map(({ address }) => address)),
    Effect.option
  )
  if (Option.isNone(asked)) {
    const what = before.length > 0 ? "its last addresses are used" : "check DNS"
    yield* Effect.logWarning(`the relay's name cannot be resolved; ${what}`).pipe(Effect.annotateLogs({ host }))
    return before
  }
  if (asked.value.join() !== before.join()) {
    const text = Schema.encodeSync(File)({ version: 1, host, addresses: asked.value })
    yield* Effect.catchAll(
      StateFile.replace(join(stateDir, FILE), `${text}\n`),
      ({ message }) => Effect.logWarning(`the relay's addresses are not kept: ${message}`)
    )
  }
  return asked.value
})
