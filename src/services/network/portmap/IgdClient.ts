/**
 * Port mappings by UPnP. It finds the gateway's device by SSDP and calls it over HTTP. It contacts
 * and trusts only the gateway itself.
 */
import { Effect, Random } from "effect"
import { familyOf } from "../../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../../protocol/candidate/Candidate.ts"
import * as Igd from "../../../protocol/nat/Igd.ts"
import { LIFETIME_S } from "../../../protocol/nat/PortMapping.ts"
import { type Ask, PortMappingFailed } from "./Asking.ts"
import * as GatewayUdp from "./GatewayUdp.ts"

type Place = { readonly gateway: string; readonly ssdpPort: number }

/**
 * Wait after each search, in milliseconds. A device answers within one second, which the search's
 * MX header allows.
 */
const SEARCH_GAPS_MS = [300, 900]
/** Longest time for one HTTP exchange. Small routers are slow. */
const HTTP_DEADLINE = "2 seconds"
/** Most external ports that are tried, if other hosts hold the first ones. */
const PORT_TRIES = 3
/** Lowest port that is tried after the wanted one. */
const LEAST_PORT = 20_000
/** Upper bound of the ports that are tried after the wanted one. */
const MOST_PORT = 60_000

/** Requests a mapping by UPnP. If the gateway grants only permanent mappings, it asks for one. */
export const upnp: Ask = Effect.fnUntraced(function*(wish) {
  const service = yield* find(wish)
  const internalHost = yield* Effect.mapError(
    GatewayUdp.localHostTo(wish.gateway),
    (message) => failed("Local", message)
  )
  const host = yield* externalOf(service)
  const add = (port: number, lifetimeS: number) =>
    run(service, "AddPortMapping", {
      NewRemoteHost: "",
      NewExternalPort: port,
      NewProtocol: "UDP",
      NewInternalPort: wish.internalPort,
      NewInternalClient: internalHost,
      NewEnabled: 1,
      NewPortMappingDescription: "sallyport",
      NewLeaseDuration: lifetimeS
    })
  let port = wish.externalPort
  let lifetimeS = LIFETIME_S
  for (let tries = 1;;) {
    const answer = yield* add(port, lifetimeS)
    if (answer._tag === "Ok") break
    if (answer.code === Igd.ONLY_PERMANENT && lifetimeS > 0) lifetimeS = 0
    else if (answer.code === Igd.CONFLICT && tries++ < PORT_TRIES) {
      port = yield* Random.nextIntBetween(LEAST_PORT, MOST_PORT)
    } else return yield* failed("Refused", `error ${answer.code}`)
  }
  return {
    protocol: "upnp" as const,
    external: { host, port },
    lifetimeS,
    epoch: null,
    release: Effect.ignore(
      run(service, "DeletePortMapping", { NewRemoteHost: "", NewExternalPort: port, NewProtocol: "UDP" })
    )
  }
})

/** Asks for the gateway's external address by UPnP. */
export const externalHost = (place: Place): Effect.Effect<string, PortMappingFailed> =>
  Effect.flatMap(find(place), (service) => externalOf(service))

const find = Effect.fnUntraced(function*(place: Place) {
  const location = yield* search(place)
  const service = Igd.serviceOf(yield* http(location, { method: "GET" }), location)
  if (service === null) return yield* failed("Silent", `${location.href} describes no service that maps ports`)
  return service
})

/**
 * Searches for the gateway's device. Each search goes to the multicast group and to the gateway
 * alone, which works where multicast does not.
 */
const search = ({ gateway, ssdpPort }: Place): Effect.Effect<URL, PortMappingFailed> =>
  Effect.scoped(Effect.gen(function*() {
    const localHost = yield* Effect.mapError(GatewayUdp.localHostTo(gateway), (message) => failed("Local", message))
    const socket = yield* GatewayUdp.open
    const found = Effect.async<URL, PortMappingFailed>((resume) => {
      socket.on("error", ({ message }) => resume(failed("Local", message)))
      socket.on("message", (bytes, { address }) => {
        const location = address === gateway ? Igd.locationOf(bytes.toString("latin1"), gateway) : null
        if (location !== null) resume(Effect.succeed(location))
      })
    })
    const bound = Effect.async<void>((resume) => {
      socket.bind(0, localHost, () => resume(Effect.void))
    })
    // A failed send does not fail the search: a host that cannot send multicast still reaches its
    // gateway.
    const send = (host: string) => Effect.sync(() => socket.send(Igd.SEARCH, ssdpPort, host, () => {}))
    const searching = Effect.forEach(
      SEARCH_GAPS_MS,
      (gap) => Effect.all([send(Igd.SSDP.host), send(gateway), Effect.sleep(gap)]),
      { discard: true }
    ).pipe(Effect.zipRight(failed("Silent", "no gateway device answers")))
    return yield* Effect.raceFirst(found, Effect.zipRight(bound, searching))
  }))

const externalOf = Effect.fnUntraced(function*(service: Igd.Service) {
  const answer = yield* run(service, "GetExternalIPAddress", {})
  if (answer._tag === "Refused") return yield* failed("Refused", `error ${answer.code}`)
  const host = Candidate.canonical(answer.values.get("NewExternalIPAddress") ?? "")
  if (host === null || familyOf(host) !== 4) return yield* failed("Silent", "it reports no external address")
  return host
})

const run = Effect.fnUntraced(
  function*({ control, type }: Igd.Service, action: string, values: Readonly<Record<string, string | number>>) {
    const text = yield* http(control, {
      method: "POST",
      headers: { "content-type": "text/xml; charset=\"utf-8\"", soapaction: `"${type}#${action}"` },
      body: Igd.call(type, action, values)
    })
    const answer = Igd.answerOf(text, action)
    if (answer === null) return yield* failed("Silent", `${control.href} does not answer ${action}`)
    return answer
  }
)

/**
 * Performs an HTTP exchange and returns the body for any status. SOAP errors come with status 500,
 * and their body says more than the status.
 */
const http = (url: URL, request: RequestInit): Effect.Effect<string, PortMappingFailed> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { ...request, redirect: "error", signal })
      return await limited(response)
    },
    catch: (cause) => failed("Silent", `${url.href}: ${cause instanceof Error ? cause.message : "no answer"}`)
  }).pipe(Effect.timeoutFail({
    duration: HTTP_DEADLINE,
    onTimeout: () => failed("Silent", `${url.href} does not answer in time`)
  }))

const limited = async (response: Response): Promise<string> => {
  const decoder = new TextDecoder()
  let text = ""
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += (chunk as Uint8Array).length
    if (bytes > Igd.MAX_BYTES) throw new Error("the answer is too long")
    text += decoder.decode(chunk as Uint8Array, { stream: true })
  }
  return text
}

const failed = (reason: PortMappingFailed["reason"], message: string) =>
  new PortMappingFailed({ protocol: "upnp", reason, message })
