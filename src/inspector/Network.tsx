/** Shows all nodes of a relay's network, and the reports of those that consent. */
import { useState } from "preact/hooks"
import { type Finding, type NetworkNode, type NetworkSample, post } from "./Api.ts"
import { Plot } from "./Plot.tsx"
import { ago, clock, ms, words } from "./Text.ts"

/** Most nodes for which the lists of peers are open at first. */
const UNFOLDED = 8

export interface NetworkAnswer {
  /** Numbers of nodes. `found` counts those that match the search, the others all nodes. */
  readonly counts: {
    readonly enrolled: number
    readonly connected: number
    readonly reporting: number
    readonly found: number
  }
  readonly nodes: ReadonlyArray<NetworkNode>
  readonly paths: Readonly<Record<string, number>>
  readonly relayed: ReadonlyArray<{ readonly reason: string; readonly count: number }>
  readonly samples: ReadonlyArray<NetworkSample>
  /** Time of the answer in epoch ms, by the relay's clock. */
  readonly at: number
}

export interface Props extends NetworkAnswer {
  readonly find: string
  readonly onFind: (part: string) => void
  /** Shows more nodes. `null` if no more can be shown. */
  readonly onMore: (() => void) | null
}

export const Network = ({ at, counts, find, nodes, onFind, onMore, paths, relayed, samples }: Props) => {
  const total = Object.values(paths).reduce((sum, count) => sum + count, 0)
  const direct = paths["direct"] ?? 0
  const known = [...samples, { at, direct, total }].map((one) => ({ at: one.at, value: percent(one) }))
  return (
    <>
      <dl>
        <Figure name="Connected">{counts.connected} of {counts.enrolled}</Figure>
        <Figure name="Reporting">{counts.reporting}</Figure>
        <Figure name="Paths">{total}</Figure>
        {Object.entries(paths).map(([path, count]) => <Figure key={path} name={path}>{count}</Figure>)}
      </dl>
      <div class="halves">
        <div>
          <h3>Direct rate</h3>
          <Plot
            label="Share of direct paths in the last day"
            samples={known}
            unit="%"
            top={100}
          />
        </div>
        <div>
          <h3>Why relayed</h3>
          {relayed.length === 0 ? <p class="none">No path is relayed now.</p> : (
            <ol class="timeline">
              {relayed.map(({ count, reason }) => (
                <li key={reason}>
                  <b>{count}</b> {words(reason)}
                </li>
              ))}
            </ol>
          )}
        </div>
      </div>
      <h3>Nodes</h3>
      {counts.enrolled <= UNFOLDED ? null : (
        <p class="finder">
          <input
            type="search"
            aria-label="Find nodes by name"
            placeholder="Find by name"
            maxLength={63}
            value={find}
            onInput={({ currentTarget }) => onFind(currentTarget.value.trim())}
          />{" "}
          <span class="soft" role="status">{nodes.length} of {counts.found} shown</span>
        </p>
      )}
      {counts.enrolled === 0 ? <p class="none">No node has enrolled yet.</p> : (
        <ul class="fleet" aria-label="Nodes">
          {nodes.map((node) => <NodeCard key={node.name} node={node} open={counts.enrolled <= UNFOLDED} />)}
        </ul>
      )}
      {nodes.length >= counts.found ? null : onMore === null
        ? <p class="soft">Find the others by their names.</p>
        : <button type="button" onClick={onMore}>Show more</button>}
    </>
  )
}

const Figure = ({ children, name }: { readonly name: string; readonly children: preact.ComponentChildren }) => (
  <div>
    <dt>{name}</dt>
    <dd>{children}</dd>
  </div>
)

/** Returns the share of direct paths, in percent. `null` if there are no paths. */
const percent = ({ direct, total }: NetworkSample): number | null =>
  total === 0 ? null : Math.round((direct / total) * 1000) / 10

const NodeCard = ({ node, open }: { readonly node: NetworkNode; readonly open: boolean }) => {
  const { name, report, role, since } = node
  return (
    <li>
      <h4>
        {name} <span class={since === null ? "chip bad" : "chip good"}>{since === null ? "away" : "connected"}</span>
      </h4>
      <p class="soft">
        {role}
        {since === null ? "" : `, since ${clock(since)}`}
        {report === null ? "" : `, version ${report.version}, Node.js ${report.runtime}, ${report.platform}`}
      </p>
      {report === null ? role === "relay" ? null : <p class="none">Reports nothing.</p> : (
        <>
          <Peers report={report} open={open} />
          {since === null ? null : <Doctor name={name} />}
        </>
      )}
    </li>
  )
}

const many = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`

const Peers = ({ open, report }: { readonly report: NonNullable<NetworkNode["report"]>; readonly open: boolean }) => {
  const { flows, peers, peersInAll } = report
  const rejected = Object.entries(flows).filter(([code, count]) => code !== "accepted" && count > 0)
  return (
    <details open={open}>
      <summary>
        {many(peersInAll, "peer")}, {many(flows["accepted"] ?? 0, "flow")} opened
        {rejected.map(([code, count]) => `, ${count} ${words(code)}`).join("")}
      </summary>
      <ul>
        {peers.map((peer) => (
          <li key={peer.name}>
            <b>{peer.name}</b> <span class={peer.path === "direct" ? "chip good" : "chip"}>{peer.path}</span>{" "}
            <span class="num">{ms(peer.rttMs)}</span>{" "}
            <span class="soft">
              {words(peer.reason)}
              {peer.pathAgeSeconds === null ? "" : `, for ${ago(peer.pathAgeSeconds)}`}
            </span>
          </li>
        ))}
      </ul>
    </details>
  )
}

/**
 * Asks the doctor of a node, but only at a click, because the node does some work for the answer.
 */
const Doctor = ({ name }: { readonly name: string }) => {
  const [said, setSaid] = useState<ReadonlyArray<Finding> | string | null>(null)
  const ask = () => {
    setSaid("asking …")
    post<{ readonly findings: ReadonlyArray<Finding> }>("/v1/doctor", { node: name }).then(
      ({ findings }) => setSaid(findings.length === 0 ? "Nothing is wrong." : findings),
      (error: unknown) => setSaid(error instanceof Error ? error.message : String(error))
    )
  }
  return (
    <>
      <button type="button" onClick={ask} aria-label={`Ask the doctor of ${name}`}>Ask its doctor</button>
      <div role="status">
        {said === null ? null : typeof said === "string" ? <p>{said}</p> : (
          <ul>
            {said.map(({ remedy, severity, what }) => (
              <li key={what}>
                <span class={severity === "broken" ? "chip bad" : "chip"}>{severity}</span> {what}
                <p class="soft">Do: {remedy}</p>
              </li>
            ))}
          </ul>
        )}
      </div>
    </>
  )
}
