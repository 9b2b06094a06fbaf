/** Renders the result of a network check for people. */
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import type * as MappingLifetime from "../../protocol/nat/MappingLifetime.ts"
import type { NatReport, NetReport } from "../../protocol/nat/NatReport.ts"
import type * as PortMapping from "../../protocol/nat/PortMapping.ts"
import { colour, table } from "./Table.ts"

const GREEN = 32
const YELLOW = 33
const RED = 31
const BOLD = 1
const PAINT = { yes: GREEN, likely: GREEN, sometimes: YELLOW, unknown: YELLOW, no: RED } as const

/**
 * Renders one column for each IP version that reaches the server. Unknown values are explained
 * below the table.
 */
export const render = ({ direct, ipv4, ipv6, lifetime, portMapping, server }: NetReport, colours: boolean): string => {
  const columns = [["IPV4", ipv4], ["IPV6", ipv6]] as const
  const shown = columns.flatMap(([name, report]) => report === null ? [] : [{ name, report }])
  const rows = [
    [server, ...shown.map(({ name }) => name)],
    ...ROWS.map(([label, cell]) => [label].concat(shown.map(({ report }) => cell(report))))
  ]
  const [head = "", ...lines] = shown.length === 0 ? [server] : table(rows).split("\n")
  const absent = columns.filter(([, report]) => report === null).map(([name]) =>
    `${name.replace("IPV", "IPv")}: no server was reached`
  )
  const notes = shown.flatMap(({ name, report }) =>
    notesOf(report).map((note) => `${name.replace("IPV", "IPv")} ${note}`)
  )
  const verdict = `Direct paths: ${direct.expected}. ${direct.why[0]?.toUpperCase()}${direct.why.slice(1)}.`
  return [
    colour(colours, BOLD, head),
    ...lines,
    ...(portMapping === null ? [] : [mappingLine(portMapping)]),
    ...(lifetime === null ? [] : [lifetimeLine(lifetime)]),
    ...[...absent, ...notes].map((line) => `  ${line}`),
    colour(colours, PAINT[direct.expected], verdict)
  ].join("\n")
}

const lifetimeLine = ({ heldMs, lostMs, reason }: MappingLifetime.Lifetime): string => {
  const bounds = [
    ...(heldMs === 0 ? [] : [`kept for ${seconds(heldMs)}`]),
    ...(lostMs === null ? [] : [`lost within ${seconds(lostMs)}`])
  ]
  const found = bounds.length === 0 ? "unknown" : bounds.join(", ")
  return `Idle mappings: ${found}${reason === null ? "" : `; not known better: ${reason}`}`
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

const mappingLine = ({ external, gateway, protocols }: PortMapping.Report): string => {
  if (gateway === null) return "Port mapping: no gateway is known here"
  if (protocols.length === 0) return `Port mapping: none; the gateway ${gateway} answers to nothing of it`
  return `Port mapping: ${protocols.join(", ")}${external === null ? "" : `, at ${external}`}`
}

const ROWS: ReadonlyArray<readonly [label: string, cell: (report: NatReport) => string]> = [
  ["UDP", ({ udp }) => udp],
  ["Round trip", ({ rttMs }) => rttMs === null ? "-" : `${rttMs.toFixed(1)} ms`],
  ["Public address", ({ mapped }) => mapped === null ? "-" : renderHostPort(mapped)],
  ["Translated", ({ translated }) => translated === null ? "-" : translated ? "yes" : "no"],
  ["Mapping", ({ mapping }) => mapping.value],
  ["Filtering", ({ filtering }) => filtering.value],
  ["Hairpin", ({ hairpin }) => hairpin.value],
  ["Ports", ({ ports: { delta, value } }) => delta === null ? value : `${value}, ${delta > 0 ? "+" : ""}${delta}`]
]

const notesOf = ({ filtering, hairpin, mapping, ports, publicHosts, udp }: NatReport): ReadonlyArray<string> => {
  if (udp === "blocked") return []
  const unknown = { mapping, filtering, hairpin, ports }
  return [
    ...Object.entries(unknown).flatMap(([name, { reason }]) =>
      reason === null ? [] : [`${name} is unknown: ${reason}`]
    ),
    ...(publicHosts.length > 1 ? [`takes turns among public addresses: ${publicHosts.join(", ")}`] : [])
  ]
}
