/**
 * Checks of several keys against each other. They work on the raw value, whatever its shape, so
 * that these mistakes are reported together with those of single keys.
 */
import { Either } from "effect"
import { isIP } from "node:net"
import { resolve } from "node:path"
import * as HostName from "../../protocol/bytes/HostName.ts"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import { CONFIGURED } from "../../protocol/flow/LocalListener.ts"
import { type Finding, nearest, type Path, sentence } from "./ConfigIssue.ts"
import { ACTORS, type Kind } from "./ConfigSchema.ts"
import * as HostPort from "./HostPort.ts"

/**
 * Longest path of a unix socket that every system accepts, in bytes. macOS allows 104 with the
 * terminating zero, Linux 108.
 */
const MAX_SOCKET_PATH_BYTES = 103

/** Path of the admin socket if the configuration names none. */
export const defaultSocket = (stateDir: string): string => resolve(stateDir, "admin.sock")

type Mapping = Readonly<Record<string, unknown>>

/** Returns all mistakes that concern more than one key. */
export const check = (kind: Kind, value: unknown, baseDir: string): ReadonlyArray<Finding> => {
  const config = mapping(value)
  return [
    ...adminIsSafe(config),
    ...socketFits(config, baseDir),
    ...placementIsWhole(kind, config),
    ...oneListenerEach(kind, config),
    ...(kind === "relay" || kind === "forwarder"
      ? [
        ...advertiseIsReachable(config),
        ...alternateDiffers(config),
        ...http3HasItsPort(config),
        ...proxyIsPossible(config),
        ...namesAreSingle(config),
        ...resourcesHavePorts(config),
        ...accessNamesExist(config)
      ]
      : [...advertisedIsForwarded(config), ...interfacesAreChosenOnce(config)])
  ]
}

const adminIsSafe = (config: Mapping): ReadonlyArray<Finding> => {
  const admin = config["admin"]
  const remote = mapping(admin)["allowRemote"] === true
  const text = typeof admin === "string" ? admin : mapping(admin)["listen"]
  const address = parsed(text)
  if (remote || address === undefined || String(text).startsWith("unix:") || HostPort.isLoopback(address.host)) {
    return []
  }
  return [{
    path: typeof admin === "string" ? ["admin"] : ["admin", "listen"],
    at: "value",
    message: sentence(
      `found ${renderHostPort(address)}, which other machines may reach`,
      "a loopback address, since the admin API asks for no password",
      `write admin: "127.0.0.1:${address.port}", or admin: {listen: "${renderHostPort(address)}", allowRemote: true}`
    )
  }]
}

const socketFits = (config: Mapping, baseDir: string): ReadonlyArray<Finding> => {
  const { admin, stateDir } = config
  const given = typeof admin === "string" && admin.startsWith("unix:") ? admin.slice(5) : undefined
  if (admin !== undefined && given === undefined) return []
  if (given === undefined && typeof stateDir !== "string") return []
  const path = given === undefined ? defaultSocket(resolve(baseDir, String(stateDir))) : resolve(baseDir, given)
  const bytes = Buffer.byteLength(path)
  if (bytes <= MAX_SOCKET_PATH_BYTES) return []
  return [{
    path: given === undefined ? ["stateDir"] : ["admin"],
    at: "value",
    message: sentence(
      `the path of the admin socket has ${bytes} bytes`,
      `at most ${MAX_SOCKET_PATH_BYTES}, the limit of unix sockets`,
      given === undefined
        ? "use a shorter stateDir, or write for example admin: \"unix:/run/sallyport.sock\""
        : "use a shorter path"
    )
  }]
}

const placementIsWhole = (kind: Kind, { http3, path, placement, webrtc }: Mapping): ReadonlyArray<Finding> => {
  const isNode = kind !== "relay" && kind !== "forwarder"
  const apart = isNode && webrtc === "auto" && path !== "relay"
    ? ["webRtc"]
    : kind === "relay" && http3 === true
    ? ["http3"]
    : []
  const known: ReadonlyArray<string> = [...ACTORS[isNode ? "node" : kind], ...apart]
  const seen = new Set<string>()
  const findings: Array<Finding> = []
  const remedy = `place each of ${known.join(", ")} once, or write placement: default`
  for (const [thread, actors] of Object.entries(mapping(placement))) {
    for (const [index, actor] of items(actors)) {
      if (typeof actor !== "string") continue
      const path = ["placement", thread, index]
      if (!known.includes(actor)) {
        findings.push({ path, at: "value", message: unknownName("actor", actor, known) })
      } else if (seen.has(actor)) {
        findings.push({
          path,
          at: "value",
          message: sentence(`actor ${actor} is placed twice`, "one thread for each actor", remedy)
        })
      }
      seen.add(actor)
    }
  }
  const left = known.filter((actor) => !seen.has(actor))
  if (typeof placement !== "object" || placement === null || left.length === 0) return findings
  return [...findings, {
    path: ["placement"],
    at: "key",
    message: sentence(`no thread for ${left.join(", ")}`, "one thread for each actor", remedy)
  }]
}

const oneListenerEach = (kind: Kind, config: Mapping): ReadonlyArray<Finding> => {
  const admin = config["admin"]
  const listeners: Array<readonly [Path, unknown]> = [
    typeof admin === "string" ? [["admin"], admin] : [["admin", "listen"], mapping(admin)["listen"]],
    ...(kind === "relay" ? [[["listen", "https"], mapping(config["listen"])["https"]] as const] : []),
    ...(kind === "client" ? CONFIGURED : []).flatMap(({ field, key }): ReadonlyArray<readonly [Path, unknown]> =>
      field === null
        ? [[[key], config[key]]]
        : items(config[key]).map(([index, item]) => [[key, index, field], mapping(item)[field]])
    )
  ]
  return listeners.flatMap(([path, text], index) => {
    const address = parsed(text)
    if (address === undefined || address.port === 0) return []
    const first = listeners.slice(0, index).find(([, other]) => clash(parsed(other), address))
    if (first === undefined) return []
    return [{
      path,
      at: "value" as const,
      message: sentence(
        `${renderHostPort(address)} is taken by ${first[0].reduce((text, part) =>
          typeof part === "number" ? `${String(text)}[${part}]` : `${String(text)}.${String(part)}`
        ) as string}`,
        "an address of its own for each listener",
        "choose another port"
      )
    }]
  })
}

const clash = (left: HostPort.HostPort | undefined, right: HostPort.HostPort): boolean =>
  left !== undefined && left.port === right.port &&
  (left.host === right.host || HostPort.isUnspecified(left.host) || HostPort.isUnspecified(right.host))

const advertiseIsReachable = (config: Mapping): ReadonlyArray<Finding> => {
  const host = mapping(config["advertise"])["host"]
  if (typeof host !== "string" || !HostPort.isUnspecified(host)) return []
  return [{
    path: ["advertise", "host"],
    at: "value",
    message: sentence(
      `found ${host}, which nobody can connect to`,
      "the host name or IP address that nodes use",
      "write for example host: relay.example.com"
    )
  }]
}

/**
 * Checks `udp.advertise`. A router forwards to one local port, so that port must not change at each
 * start.
 */
const advertisedIsForwarded = (config: Mapping): ReadonlyArray<Finding> => {
  const { advertise, port = 0 } = mapping(config["udp"])
  const first = new Map<string, number>()
  return items(advertise).flatMap(([index, text]) => {
    const address = typeof text === "string" ? Either.getOrUndefined(HostPort.parseAdvertised(text)) : undefined
    if (address === undefined) return []
    const path = ["udp", "advertise", index]
    const earlier = first.get(renderHostPort(address))
    if (earlier !== undefined) {
      return [{
        path,
        at: "value" as const,
        message: sentence(
          `${JSON.stringify(text)} is the same address as udp.advertise[${earlier}]`,
          "each address once",
          "remove one of the two"
        )
      }]
    }
    first.set(renderHostPort(address), index)
    if (address.port === 0 || port !== 0) return []
    return [{
      path,
      at: "value" as const,
      message: sentence(
        `found port ${address.port} while udp.port is 0, so that each start takes another local port`,
        "a fixed udp.port for the router to forward to",
        "write for example udp: {port: 41641, advertise: [\"203.0.113.7:41641\"]}"
      )
    }]
  })
}

const interfacesAreChosenOnce = (config: Mapping): ReadonlyArray<Finding> => {
  const { exclude, prefer } = mapping(mapping(config["udp"])["interfaces"])
  const excluded = new Set(items(exclude).map(([, name]) => name))
  return items(prefer).flatMap(([index, name]) =>
    typeof name !== "string" || !excluded.has(name)
      ? []
      : [{
        path: ["udp", "interfaces", "prefer", index],
        at: "value" as const,
        message: sentence(
          `${JSON.stringify(name)} is also in udp.interfaces.exclude`,
          "each interface in one of the two lists",
          "remove it from one of them"
        )
      }]
  )
}

const alternateDiffers = (config: Mapping): ReadonlyArray<Finding> => {
  const { stunAlternate, udp } = mapping(config["listen"])
  const port = parsed(udp)?.port
  const other = parsed(stunAlternate)
  if (port === undefined || other === undefined || (other.port !== port && other.port !== 0)) return []
  return [{
    path: ["listen", "stunAlternate"],
    at: "value",
    message: sentence(
      `found port ${other.port}`,
      "a port of its own, other than that of listen.udp",
      `write for example stunAlternate: "${renderHostPort({ ...other, port: port + 1 })}"`
    )
  }]
}

/**
 * Checks a relay behind a reverse proxy. The proxy's certificate is for a name, and HTTP/3 cannot
 * pass through the proxy.
 */
const proxyIsPossible = (config: Mapping): ReadonlyArray<Finding> => {
  if (config["behindProxy"] === undefined) return []
  const host = mapping(config["advertise"])["host"]
  return [
    ...(config["http3"] === true
      ? [{
        path: ["http3"],
        at: "value" as const,
        message: sentence(
          "found true with behindProxy",
          "false, since no HTTP/3 crosses a reverse proxy",
          "leave http3 out"
        )
      }]
      : []),
    ...(typeof host === "string" && isIP(host) !== 0
      ? [{
        path: ["advertise", "host"],
        at: "value" as const,
        message: sentence(
          `found ${host} with behindProxy`,
          "the name that the reverse proxy's certificate is for",
          "write for example host: relay.example.com"
        )
      }]
      : [])
  ]
}

/** Checks that the UDP port with the number of the HTTPS port is free for HTTP/3. */
const http3HasItsPort = (config: Mapping): ReadonlyArray<Finding> => {
  const { https, stunAlternate, udp } = mapping(config["listen"])
  const at = parsed(https)
  if (config["http3"] !== true || at === undefined || at.port === 0) return []
  const others = [["listen.udp", udp], ["listen.stunAlternate", stunAlternate], [
    "turn.udp",
    mapping(config["turn"])["udp"]
  ]]
  const taker = others.find(([, other]) => clash(parsed(other), at))
  if (taker === undefined) return []
  return [{
    path: ["http3"],
    at: "value",
    message: sentence(
      `UDP port ${at.port} is taken by ${String(taker[0])}`,
      "the UDP port of the same number as listen.https to be free for HTTP/3",
      `choose another port for ${String(taker[0])}, or leave http3 out`
    )
  }]
}

const namesAreSingle = (config: Mapping): ReadonlyArray<Finding> => {
  const first = new Map<string, number>()
  return items(config["resources"]).flatMap(([index, resource]) => {
    const name = mapping(resource)["name"]
    if (typeof name !== "string") return []
    const normal = HostName.normalize(name) ?? name
    const earlier = first.get(normal)
    if (earlier === undefined) {
      first.set(normal, index)
      return []
    }
    return [{
      path: ["resources", index, "name"],
      at: "value" as const,
      message: sentence(
        `the name ${JSON.stringify(name)} is taken by resources[${earlier}]`,
        "a name of its own for each resource",
        "rename one of the two"
      )
    }]
  })
}

const resourcesHavePorts = (config: Mapping): ReadonlyArray<Finding> =>
  items(config["resources"]).flatMap(([index, resource]) => {
    const { address, tcp, udp } = mapping(resource)
    const none = (ports: unknown) => ports === undefined || (Array.isArray(ports) && ports.length === 0)
    if (address === undefined || !none(tcp)) return []
    return [{
      path: none(udp) ? ["resources", index] : ["resources", index, "udp"],
      at: none(udp) ? "value" as const : "key" as const,
      message: none(udp)
        ? sentence("found no port", "at least one in tcp", "write for example tcp: [80, \"8000-8100\"]")
        : sentence(
          "found ports in udp only",
          "at least one in tcp, since this version carries TCP flows only",
          "add tcp, or remove the resource"
        )
    }]
  })

const accessNamesExist = (config: Mapping): ReadonlyArray<Finding> => {
  const known = items(config["resources"]).flatMap(([, resource]) => {
    const name = mapping(resource)["name"]
    return typeof name === "string" ? [HostName.normalize(name) ?? name] : []
  })
  return items(config["access"]).flatMap(([rule, access]) =>
    items(mapping(access)["resources"]).flatMap(([index, name]) =>
      typeof name !== "string" || name === "*" || known.includes(HostName.normalize(name) ?? name)
        ? []
        : [{
          path: ["access", rule, "resources", index],
          at: "value" as const,
          message: unknownName("resource", name, known)
        }]
    )
  )
}

const unknownName = (what: string, name: string, known: ReadonlyArray<string>): string => {
  const close = nearest(name, known)
  return sentence(
    `unknown ${what} ${JSON.stringify(name)}`,
    known.length === 0 ? `a ${what} of this file, which has none` : `one of ${known.join(", ")}`,
    close === undefined ? `correct the name, or add the ${what}` : `did you mean ${close}?`
  )
}

const parsed = (text: unknown): HostPort.HostPort | undefined =>
  typeof text === "string" ? Either.getOrUndefined(HostPort.parse(text)) : undefined

const mapping = (value: unknown): Mapping =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? value as Mapping : {}

const items = (value: unknown): ReadonlyArray<readonly [number, unknown]> =>
  Array.isArray(value) ? [...value.entries()] : []
