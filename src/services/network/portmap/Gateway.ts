/**
 * Finds this host's IPv4 default gateway. Linux: `/proc/net/route`, or `ip route` if that has none.
 * macOS and FreeBSD: `netstat -rn`. On other systems no gateway is found.
 */
import { Duration, Effect } from "effect"
import { execFile } from "node:child_process"
import { readFile } from "node:fs/promises"
import * as Os from "node:os"
import { familyOf } from "../../../protocol/bytes/SocketAddr.ts"
import * as Candidate from "../../../protocol/candidate/Candidate.ts"

/** Longest wait for either command. Both answer within milliseconds. */
const COMMAND_DEADLINE = Duration.seconds(1)
/** Most output of a command that is read. Default routes come early in a routing table. */
const MAX_OUTPUT_BYTES = 1 << 20
/** Flag in `/proc/net/route`: the route is up. */
const UP = 1
/** Flag in `/proc/net/route`: the route leads to a gateway. */
const GATEWAY = 2

/**
 * Reads `/proc/net/route` and returns the gateway with the lowest metric. Addresses there are
 * hexadecimal, in the byte order of a little-endian host.
 */
export const fromProc = (table: string): string | null => {
  const routes = table.split("\n").slice(1).flatMap((line) => {
    const [, to = "", via = "", flags = "", , , metric = "", mask = ""] = line.trim().split(/\s+/)
    if (to !== "00000000" || mask !== "00000000" || !/^[0-9A-Fa-f]{8}$/.test(via)) return []
    if ((Number.parseInt(flags, 16) & (UP | GATEWAY)) !== (UP | GATEWAY)) return []
    const host = usable(via.match(/../g)!.toReversed().map((byte) => Number.parseInt(byte, 16)).join("."))
    return host === null ? [] : [{ host, metric: Number(metric) }]
  })
  return routes.toSorted((a, b) => a.metric - b.metric)[0]?.host ?? null
}

/**
 * Reads the output of `ip -4 route get`, which is the route to one address with policy routing
 * applied.
 */
export const fromIpRoute = (text: string): string | null => usable(/\bvia (\S+)/.exec(text)?.[1] ?? "")

/** Reads the output of `netstat -rn -f inet`. */
export const fromNetstat = (text: string): string | null => {
  for (const [, host = ""] of text.matchAll(/^default\s+(\S+)/gm)) if (usable(host) !== null) return usable(host)
  return null
}

const usable = (text: string): string | null => {
  const host = Candidate.canonical(text)
  return host !== null && familyOf(host) === 4 && Candidate.isUsableHost(host, false) ? host : null
}

/**
 * Runs a command and returns its output. Empty if the command does not exist, fails or takes too
 * long.
 */
const outputOf = (command: string, ...args: ReadonlyArray<string>): Effect.Effect<string> =>
  Effect.async<string>((resume) => {
    const child = execFile(command, args, { maxBuffer: MAX_OUTPUT_BYTES }, (error, out) => {
      resume(Effect.succeed(error === null ? out : ""))
    })
    return Effect.sync(() => void child.kill())
  }).pipe(Effect.timeoutTo({ duration: COMMAND_DEADLINE, onSuccess: (out) => out, onTimeout: () => "" }))

const linux = Effect.tryPromise(() => readFile("/proc/net/route", "latin1")).pipe(
  Effect.map(fromProc),
  Effect.orElseSucceed(() => null),
  Effect.flatMap((host) =>
    host === null ? Effect.map(outputOf("ip", "-4", "route", "get", "192.0.2.1"), fromIpRoute) : Effect.succeed(host)
  )
)

/** The default gateway, or `null` if there is none or this system does not report it. */
export const find: Effect.Effect<string | null> = Effect.suspend(() => {
  const platform = Os.platform()
  if (platform === "linux") return linux
  return platform === "darwin" || platform === "freebsd"
    ? Effect.map(outputOf("netstat", "-rn", "-f", "inet"), fromNetstat)
    : Effect.succeed(null)
})
