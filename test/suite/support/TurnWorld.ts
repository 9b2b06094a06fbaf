/** A TURN server on loopback, for clients of any make. */
import { Effect, Redacted } from "effect"
import { isIPv6 } from "node:net"
import * as TurnAllocations from "../../../src/protocol/relay/TurnAllocations.ts"
import * as Crypto from "../../../src/services/host/Crypto.ts"
import * as TurnCredentials from "../../../src/services/identity/TurnCredentials.ts"
import type * as LocalAddresses from "../../../src/services/network/LocalAddresses.ts"
import * as TurnSockets from "../../../src/transport/turn/TurnSockets.ts"

export const HOST = "127.0.0.1"
export const PORTS = { from: 41_000, to: 42_999 }

export interface Settings {
  readonly allowPeers?: ReadonlyArray<string>
  /** Further addresses for UDP. */
  readonly alsoAt?: ReadonlyArray<string>
  readonly answerShort?: boolean
  readonly limits?: Partial<TurnAllocations.Limits>
  /** Added to the time by which credentials are judged. */
  readonly skewSeconds?: () => number
}

const seen = (...hosts: ReadonlyArray<string>): LocalAddresses.Seen => ({
  source: "netlink",
  interfaces: {
    // oxlint-disable-next-line oxc/no-map-spread -- one or two addresses
    eth0: hosts.map((address) => {
      const common = { address, netmask: "", mac: "", internal: false, cidr: null }
      return isIPv6(address) ? { ...common, family: "IPv6", scopeid: 0 } : { ...common, family: "IPv4" }
    })
  }
})

export const start = Effect.fnUntraced(function*(settings: Settings = {}) {
  const secret = Redacted.make(Crypto.randomBytes(32))
  const errors: Array<Error> = []
  const sockets = yield* TurnSockets.open({
    secret,
    udp: { host: settings.alsoAt === undefined ? HOST : "::", port: 0 },
    see: () => seen(HOST, ...settings.alsoAt ?? []),
    tcp: { host: HOST, port: 0 },
    publicAddress: HOST,
    relayHost: HOST,
    ports: PORTS,
    allowPeers: settings.allowPeers ?? [],
    answerShort: settings.answerShort ?? false,
    limits: { ...TurnAllocations.DEFAULT_LIMITS, ...settings.limits },
    epochSeconds: () => Math.floor(Date.now() / 1000) + (settings.skewSeconds?.() ?? 0),
    onError: (cause) => errors.push(cause)
  })
  const issue = (name: string, lifetimeSeconds = TurnCredentials.LIFETIME_SECONDS) => {
    const username = `${Math.floor(Date.now() / 1000) + lifetimeSeconds}:${name}`
    return { username, password: TurnCredentials.passwordOf(secret, username) }
  }
  return { ...sockets, udpPort: sockets.udpPort!, tcpPort: sockets.tcpPort!, errors, issue }
})

export type Turn = Effect.Effect.Success<ReturnType<typeof start>>
export type Login = { readonly username: string; readonly password: string }
