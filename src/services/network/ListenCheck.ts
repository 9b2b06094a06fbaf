/**
 * Tries a role's addresses before its threads start, so that a taken port or a missing right gives
 * the operator one line instead of a series of restarts. The addresses are free again when the
 * check ends.
 */
import { Effect, Schema } from "effect"
import { createSocket } from "node:dgram"
import { createServer, isIP } from "node:net"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import * as HostPort from "../config/HostPort.ts"

/**
 * Error when some addresses cannot be used. `message` has one line for each, with its configuration
 * key and the remedy.
 */
export class CannotListen extends Schema.TaggedError<CannotListen>()("CannotListen", { message: Schema.String }) {}

export interface Wanted {
  /** The configuration key that names the address, such as `listen.https`. */
  readonly key: string
  readonly protocol: "tcp" | "udp"
  /**
   * The address, or `null` if the role does not listen there. Port 0 is any free port and is not
   * checked.
   */
  readonly at: HostPort.HostPort | null | undefined
  /**
   * Set to `true` if the role itself waits for an address that this machine does not have yet, for
   * example before an interface is up.
   */
  readonly mayCome?: boolean
}

/**
 * First port that needs no right on most systems. On Linux it is
 * `net.ipv4.ip_unprivileged_port_start`.
 */
const FIRST_FREE_PORT = 1024

/**
 * Tries to bind all addresses at once, and then releases them. Fails with every problem that it
 * found.
 */
export const check = (wanted: ReadonlyArray<Wanted>): Effect.Effect<void, CannotListen> =>
  Effect.forEach(wanted, problemOf, { concurrency: "unbounded" }).pipe(Effect.flatMap((found) => {
    const problems = found.filter((problem) => problem !== null)
    return problems.length === 0 ? Effect.void : new CannotListen({ message: problems.join("\n") })
  }))

/** The line that {@link CannotListen} shows for this address, or `null` if it can be used. */
const problemOf = ({ at, key, mayCome = false, protocol }: Wanted): Effect.Effect<string | null> => {
  if (at === null || at === undefined || at.port === 0) return Effect.succeed(null)
  return Effect.map(
    protocol === "tcp" ? tryTcp(at) : tryUdp(at),
    (code) =>
      code === null || (mayCome && code === "EADDRNOTAVAIL")
        ? null
        : `${key} cannot listen on ${renderHostPort(at)}: ${remedy(code, at.port, protocol)}`
  )
}

/**
 * Tries to bind the address. Returns the system's code, or `null` if the address could be bound.
 */
const tryTcp = ({ host, port }: HostPort.HostPort): Effect.Effect<string | null> =>
  Effect.async((resume) => {
    const server = createServer()
    server.once("error", (error) => resume(Effect.succeed(codeOf(error))))
    server.listen({ host, port }, () => server.close(() => resume(Effect.succeed(null))))
  })

/**
 * Tries to bind the address. Returns the system's code, or `null` if the address can be used.
 *
 * A relay that is configured to listen on all addresses binds each one separately and skips those
 * that it cannot bind. On an unspecified address, therefore, only a taken port and a missing right
 * count as problems.
 */
const tryUdp = ({ host, port }: HostPort.HostPort): Effect.Effect<string | null> => {
  const family = isIP(host)
  if (family === 0) return Effect.succeed(null)
  return Effect.async((resume) => {
    const socket = createSocket({ type: family === 6 ? "udp6" : "udp4", ipv6Only: family === 6 })
    const done = (code: string | null) => {
      socket.close()
      const isFatal = code === "EADDRINUSE" || isForbidden(code) || !HostPort.isUnspecified(host)
      resume(Effect.succeed(isFatal ? code : null))
    }
    socket.once("error", (error) => done(codeOf(error)))
    socket.bind({ address: host, port }, () => done(null))
  })
}

const isForbidden = (code: string | null) => code === "EACCES" || code === "EPERM"

const codeOf = (error: Error): string => "code" in error ? String(error.code) : error.message

/**
 * Returns advice about an address that cannot be listened on. `code` is the system's, such as
 * `EADDRINUSE`.
 */
export const remedy = (code: string, port: number, protocol: "tcp" | "udp"): string => {
  if (code === "EADDRINUSE") {
    const option = protocol === "tcp" ? "-ltnp" : "-lunp"
    return `another program listens there; stop it (ss ${option} shows which), or choose another port`
  }
  if (isForbidden(code)) {
    return port < FIRST_FREE_PORT
      ? `ports below ${FIRST_FREE_PORT} need a right; grant CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=), ` +
        "run as root, or choose a higher port"
      : "the system does not permit it; see its security policy (SELinux, AppArmor), or choose another port"
  }
  if (code === "EADDRNOTAVAIL") return "this machine has no such address; correct it, or use 0.0.0.0 for all addresses"
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "the name has no address; write an IP address"
  if (code === "EAFNOSUPPORT") return "this machine has no IPv6; use an IPv4 address"
  return `${code}; check the address in the configuration`
}
