/**
 * Serves HTTP/3 at the relay. It accepts WebTransport sessions on the UDP port with the same number
 * as the HTTPS port, and hands each session to the hub. It runs in a child process (decision 26):
 * anybody's packets reach the QUIC library here, so a packet that blocks or crashes it must not
 * affect the relay.
 */
import { Effect, FiberSet, Layer, Schema, Stream } from "effect"
import * as RelayTls from "../../services/identity/RelayTls.ts"
import * as Http3Front from "../../transport/http3/Http3Front.ts"
import * as Http3Metrics from "../../transport/http3/Http3Metrics.ts"
import { SignalingHub } from "../hub/SignalingHubRpcs.ts"
import * as Actor from "../runtime/actor/Actor.ts"
import { Peers } from "../runtime/actor/Peers.ts"
import * as Self from "../runtime/actor/Self.ts"
import { Http3, Http3Rpcs } from "./Http3Rpcs.ts"

/** Settings of the Http3Actor, from the relay's configuration. */
export const Config = Schema.Struct({
  stateDir: Schema.String,
  /** Host to bind, the same as for the HTTPS port. The hub tells the port's number. */
  host: Schema.String,
  /** Path of the hub's unix socket, to which sessions are handed. */
  gate: Schema.String,
  /** Name by which nodes reach the relay, as for the HTTPS port. */
  advertised: Schema.String,
  /** The operator's certificate, as for the HTTPS port. `null` if there is none. */
  tls: Schema.NullOr(Schema.Struct({ cert: Schema.String, key: Schema.String }))
})
export type Config = typeof Config.Type

const make = Effect.fnUntraced(function*({ gate, host }: Config) {
  const tls = yield* RelayTls.RelayTls
  const hub = yield* Peers.ref(SignalingHub)
  const self = yield* Self.Self
  const fork = yield* FiberSet.makeRuntime()
  const { https } = yield* hub.ask((client) => client.AwaitListening(), { deadline: "20 seconds" })
  const front = yield* Http3Front.make({
    host,
    port: https,
    certificate: yield* tls.current,
    changes: Stream.drop(tls.changes, 1),
    gate,
    onError: (cause) => void fork(Effect.logError("a UDP socket of HTTP/3 failed", cause))
  })
  yield* self.exposeMetrics(() => Http3Metrics.read(front.listener))
  return Http3Rpcs.of({ AwaitListening: () => Effect.succeed({ http3: front.port }) })
})

/** The Http3Actor, for the runtime that starts it. */
export const actor = Actor.make({
  address: Http3,
  config: Config,
  uses: [SignalingHub],
  layer: (config) => {
    const { advertised, stateDir, tls } = config
    return Http3Rpcs.toLayer(make(config)).pipe(
      Layer.provide(RelayTls.layer({ stateDir, host: advertised, tls }))
    )
  }
})
