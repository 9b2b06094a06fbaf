/** `sallyport network`: shows the relay's view of its network, as consenting nodes report it. */
import { Console, Effect } from "effect"
import { Network } from "../../actors/hub/SignalingHubRpcs.ts"
import { isDirect, PATH_KINDS } from "../../protocol/path/PathKind.ts"
import * as ReasonText from "../../services/telemetry/ReasonText.ts"
import * as Asker from "../Asker.ts"
import { failure } from "../CliError.ts"
import { colour, table } from "../show/Table.ts"
import type { Options } from "./Inspect.ts"

type Node = Network["nodes"][number]

/** `sallyport network`: asks for all pages of the overview and prints them as one. */
export const network = ({ config, find, json }: Options & {
  /** Part of a node's name, in any case. Empty for all nodes. */
  readonly find: string
}) =>
  Effect.gen(function*() {
    const { get } = yield* Asker.make(config)
    const page = (after: string) => get(`/v1/network?${new URLSearchParams({ find, after }).toString()}`, Network)
    let answer = yield* page("")
    while (answer.next !== null) {
      const more = yield* page(answer.next)
      answer = { ...more, nodes: answer.nodes.concat(more.nodes) }
    }
    if (json) return yield* Console.log(JSON.stringify(answer))
    if (answer.counts.enrolled === 0) {
      return yield* Console.log("No node has enrolled yet. Let one with: sallyport token create")
    }
    if (answer.nodes.length === 0) {
      return yield* failure(`none of ${answer.counts.enrolled} nodes has ${find} in its name`)
    }
    yield* Console.log(render(answer, Asker.hasColours()))
  })

/** Renders the overview: a table of nodes, the paths by kind, and why some are relayed. */
export const render = (network: Network, colours: boolean): string => {
  const { counts: { silent }, nodes, paths, relayed } = network
  const total = PATH_KINDS.reduce((sum, kind) => sum + (paths[kind] ?? 0), 0)
  const kinds = PATH_KINDS.toReversed().flatMap((kind) => (paths[kind] ? [`${paths[kind]} ${kind}`] : []))
  return [
    table([
      ["NODE", "ROLE", "STATE", "VERSION", "NODE.JS", "PEERS", "DIRECT", "FLOWS", "REJECTED"],
      ...nodes.map(rowOf)
    ]),
    "",
    total === 0
      ? "No paths are reported now."
      : `Paths: ${kinds.join(", ")}; ${percent(paths.direct ?? 0, total)} direct.`,
    ...relayed.map(({ count, reason }) => colour(colours, 33, `  ${count} relayed: ${inWords(reason)}`)),
    ...lastDay(network),
    ...(silent === 0 ? [] : [`${silent} connected without telemetry: {report: true}, of which nothing is known here.`])
  ].join("\n")
}

const rowOf = ({ name, report, role, since }: Node): ReadonlyArray<string> => {
  const state = since === null ? "away" : "connected"
  if (report === null) return [name, role, state, "-", "-", "-", "-", "-", "-"]
  const { accepted = 0, ...rejected } = report.flows
  const others = Object.entries(rejected).filter(([, count]) => count > 0).map(([code, count]) => `${count} ${code}`)
  return [
    name,
    role,
    state,
    report.version,
    report.runtime,
    String(report.peersInAll),
    String(report.peers.filter(({ path }) => isDirect(path)).length),
    String(accepted),
    others.join(", ") || "-"
  ]
}

const lastDay = ({ samples }: Network): ReadonlyArray<string> => {
  const total = samples.reduce((sum, sample) => sum + sample.total, 0)
  const direct = samples.reduce((sum, sample) => sum + sample.direct, 0)
  const hours = samples.length / 60
  return total === 0
    ? []
    : [
      `In the last ${hours < 1 ? `${samples.length} min` : `${Math.round(hours)} h`}: ${percent(direct, total)} direct.`
    ]
}

const percent = (part: number, of: number): string => `${Math.round((part / of) * 100)} %`

/**
 * Text of a reason. A newer node may report a reason that this version does not know; its code is
 * shown in words.
 */
const inWords = (reason: string): string =>
  Object.hasOwn(ReasonText.TEXT, reason)
    ? ReasonText.TEXT[reason as keyof typeof ReasonText.TEXT]
    : reason.replaceAll("_", " ")
