/**
 * The addresses of a relay's name. The last answer from DNS is kept in the state directory, so that
 * a node that starts while DNS is down still finds its relay.
 */
import { Context, Duration, Effect, Schema } from "effect"
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import { join } from "node:path"
import * as StateFile from "../host/StateFile.ts"

/** Name of the file in a node's state directory. */
export const FILE = "relay-addresses.json"
/**
 * How long one lookup may take. The system's resolver waits 5 s for each name server before it asks
 * the next one, and asks all of them twice. Meanwhile the caller goes on with the known addresses.
 */
const PATIENCE = Duration.seconds(30)
/** Most addresses that are used and kept. Others are dropped. */
const MAX_ADDRESSES = 8

/**
 * Asks the system for every address of a name, IPv4 first. Rejects if the name has none, or if no
 * name server answers.
 */
export type Lookup = (host: string) => Promise<ReadonlyArray<string>>

/** The resolver in use. Tests replace it. */
export class Resolver extends Context.Reference<Resolver>()("sallyport/services/RelayAddresses/Resolver", {
  defaultValue: (): Lookup => async (host) =>
    (await lookup(host, { all: true, order: "ipv4first" })).map(({ address }) => address)
}) {}

const File = Schema.parseJson(Schema.Struct({
  version: Schema.Literal(1),
  host: Schema.String,
  addresses: Schema.Array(Schema.String.pipe(Schema.filter((text) => isIP(text) !== 0))).pipe(
    Schema.maxItems(MAX_ADDRESSES)
  )
}))

/**
 * Returns the last answer from DNS, from the state directory. Empty if the name was never found, or
 * if the file is damaged or for another name.
 */
export const known = (stateDir: string, host: string): Effect.Effect<ReadonlyArray<string>> =>
  isIP(host) !== 0 ? Effect.succeed([host]) : StateFile.read(join(stateDir, FILE)).pipe(
    Effect.flatten,
    Effect.flatMap(({ text }) => Schema.decodeUnknown(File)(text)),
    Effect.map((file) => (file.host === host ? file.addresses : [])),
    Effect.orElseSucceed(() => [])
  )

/**
 * Asks DNS for every address of the name, IPv4 first, and stores the answer. `null` if DNS does not
 * answer or does not know the name. It may take as long as `PATIENCE`, so run it concurrently with
 * other work.
 */
export const ask = Effect.fnUntraced(function*(stateDir: string, host: string) {
  if (isIP(host) !== 0) return [host]
  const resolver = yield* Resolver
  const found = yield* Effect.tryPromise(() => resolver(host)).pipe(
    Effect.timeout(PATIENCE),
    Effect.map((all) => all.slice(0, MAX_ADDRESSES)),
    Effect.orElseSucceed((): ReadonlyArray<string> => [])
  )
  if (found.length === 0) return null
  const before = yield* known(stateDir, host)
  if (found.join() !== before.join()) {
    const text = Schema.encodeSync(File)({ version: 1, host, addresses: found })
    yield* Effect.catchAll(
      StateFile.replace(join(stateDir, FILE), `${text}\n`),
      ({ message }) => Effect.logWarning(`the relay's addresses are not kept: ${message}`)
    )
  }
  return found
})
