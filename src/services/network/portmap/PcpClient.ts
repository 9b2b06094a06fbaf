/** Port mappings by PCP (RFC 6887) and by NAT-PMP (RFC 6886), which share a port at the gateway. */
import { Effect, Either } from "effect"
import { familyOf } from "../../../protocol/bytes/SocketAddr.ts"
import * as NatPmp from "../../../protocol/nat/NatPmp.ts"
import * as Pcp from "../../../protocol/nat/Pcp.ts"
import { LIFETIME_S } from "../../../protocol/nat/PortMapping.ts"
import { nowMs } from "../../../session/MonotonicClock.ts"
import { type Ask, PortMappingFailed } from "./Asking.ts"
import * as GatewayUdp from "./GatewayUdp.ts"

type Place = { readonly gateway: string; readonly port: number }

/** Requests a mapping by PCP. */
export const pcp: Ask = Effect.fnUntraced(function*(wish) {
  const { externalPort, internalPort, nonce } = wish
  const map = (suggestedPort: number, lifetimeS: number) =>
    askPcp(
      wish,
      (clientHost) =>
        Pcp.encodeMap({ clientHost, nonce, internalPort, lifetimeS, suggested: { host: null, port: suggestedPort } }),
      (it) => it._tag === "Map" && it.internalPort === internalPort && isSame(it.nonce, nonce) ? it : null
    )
  const { epochS, external, lifetimeS } = yield* map(externalPort, LIFETIME_S)
  if (external === null || familyOf(external.host) !== 4) return yield* odd("pcp", "no IPv4 address is given")
  return {
    protocol: "pcp" as const,
    external,
    lifetimeS,
    epoch: { serverS: epochS, atMs: yield* nowMs },
    release: Effect.ignore(map(0, 0))
  }
})

/** Checks whether the gateway speaks PCP, without changing anything there. Fails if it does not. */
export const speaksPcp = (place: Place): Effect.Effect<void, PortMappingFailed> =>
  Effect.asVoid(askPcp(place, Pcp.encodeAnnounce, (it) => it._tag === "Announce" ? it : null))

/** Requests a mapping by NAT-PMP. */
export const natPmp: Ask = Effect.fnUntraced(function*(wish) {
  const { externalPort, internalPort } = wish
  const map = (suggestedPort: number, lifetimeS: number) =>
    askNatPmp(
      wish,
      NatPmp.encodeMap({ internalPort, suggestedPort, lifetimeS }),
      (it) => it._tag === "Mapped" && it.internalPort === internalPort ? it : null,
      "Mapped"
    )
  const host = yield* externalHost(wish)
  const { epochS, externalPort: port, lifetimeS } = yield* map(externalPort, LIFETIME_S)
  if (port === 0) return yield* odd("nat-pmp", "no port is given")
  return {
    protocol: "nat-pmp" as const,
    external: { host, port },
    lifetimeS,
    epoch: { serverS: epochS, atMs: yield* nowMs },
    release: Effect.ignore(map(0, 0))
  }
})

/** Asks for the gateway's external address by NAT-PMP. */
export const externalHost = (place: Place): Effect.Effect<string, PortMappingFailed> =>
  askNatPmp(place, NatPmp.encodeExternal(), (it) => it._tag === "External" ? it.host : null, "External")

const askPcp = <A extends Pcp.Response>(
  { gateway, port }: Place,
  bytes: (localHost: string) => Uint8Array,
  read: (response: Pcp.Response) => A | null
): Effect.Effect<A, PortMappingFailed> =>
  GatewayUdp.ask<A | "version">({
    protocol: "pcp",
    host: gateway,
    port,
    bytes,
    read: (answer) =>
      Either.match(Pcp.decode(answer), {
        onLeft: ({ reason }) => reason === "Version" ? "version" as const : null,
        onRight: read
      })
  }).pipe(Effect.flatMap((answer) => {
    if (answer === "version") return odd("pcp", "it speaks another version")
    return Pcp.isSuccess(answer) ? Effect.succeed(answer) : refused("pcp", Pcp.resultName(answer.result))
  }))

const askNatPmp = <A>(
  { gateway, port }: Place,
  bytes: Uint8Array,
  read: (response: NatPmp.Response) => A | null,
  to: "External" | "Mapped"
): Effect.Effect<A, PortMappingFailed> =>
  GatewayUdp.ask<{ readonly ok: A } | { readonly no: number }>({
    protocol: "nat-pmp",
    host: gateway,
    port,
    bytes: () => bytes,
    read: (answer) => {
      const decoded = NatPmp.decode(answer)
      if (Either.isLeft(decoded)) return null
      if (decoded.right._tag === "Refused") return decoded.right.to === to ? { no: decoded.right.result } : null
      const ok = read(decoded.right)
      return ok === null ? null : { ok }
    }
  }).pipe(Effect.flatMap((it) => "ok" in it ? Effect.succeed(it.ok) : refused("nat-pmp", NatPmp.resultName(it.no))))

const isSame = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i])

const refused = (protocol: "pcp" | "nat-pmp", message: string) =>
  Effect.fail(new PortMappingFailed({ protocol, reason: "Refused", message }))
const odd = (protocol: "pcp" | "nat-pmp", message: string) =>
  Effect.fail(new PortMappingFailed({ protocol, reason: "Silent", message }))
