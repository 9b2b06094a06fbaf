/** Network check by this process alone, without a running node. */
import { Effect, Schema } from "effect"
import { lookup } from "node:dns/promises"
import { renderHostPort } from "../protocol/bytes/SocketAddr.ts"
import type * as HostPort from "../services/config/HostPort.ts"
import * as PortMapper from "../services/network/portmap/PortMapper.ts"
import * as NetCheck from "../transport/udp/NetCheck.ts"

/** Error when the check could not start. `message` says what to correct. */
export class NetcheckFailed
  extends Schema.TaggedError<NetcheckFailed>()("NetcheckFailed", { message: Schema.String })
{}

/**
 * Checks how the network treats UDP. `server` is the UDP address of a relay or of any STUN server.
 */
export const run = Effect.fn("Netcheck.run")(function*(server: HostPort.HostPort) {
  const found = yield* Effect.tryPromise({
    try: () => lookup(server.host, { all: true }),
    catch: () => new NetcheckFailed({ message: `the name ${server.host} is not found; check it, and DNS` })
  })
  const addresses = found.map(({ address }) => ({ host: address, port: server.port }))
  return yield* NetCheck.run(renderHostPort(server), addresses, PortMapper.probeAlone)
})
