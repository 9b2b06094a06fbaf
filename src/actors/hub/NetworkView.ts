/**
 * Reports of the nodes that consent, and how many sessions were direct over the last day. All of it
 * is in memory: after a restart of the relay, nodes report again. There is one row for each node
 * that has signed in and was not removed since, so the directory bounds their number. This is plain
 * state of the SignalingHubActor, changed only by synchronous calls.
 */
import { Either, Schema } from "effect"
import { TokenBucket } from "../../protocol/bytes/TokenBucket.ts"
import { isDirect, type PathKind } from "../../protocol/path/PathKind.ts"
import * as NodeReport from "../../protocol/relay/NodeReport.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import { ReportRefused } from "../signaling/RelaySignalingRpcs.ts"
import type { Network, Sample, Seen, Wanted } from "./SignalingHubRpcs.ts"

/**
 * Rate of reports and answers that one node may send. A node sends at most one in two seconds.
 * Anything above the rate is refused and not decoded.
 */
const RATE_PER_SECOND = 1
const BURST = 5
/** Most samples that are kept: a day with one a minute. One more drops the oldest. */
const MAX_SAMPLES = 24 * 60

interface Row {
  readonly bucket: TokenBucket
  report: NodeReport.NodeReport | null
  /** When the node last reported, in ms since the epoch. */
  reportedAt: number | null
}

/**
 * The present time on both clocks. `epochMs` is shown to people, and `ms` (monotonic) is for rate
 * limits.
 */
export interface Now {
  readonly epochMs: number
  readonly ms: number
}

const refused = (code: ReportRefused["code"], message: string) => Either.left(new ReportRefused({ code, message }))

/** Reports of nodes, and samples of how their sessions are connected. */
export class NetworkView {
  readonly #rows = new Map<NodeKey, Row>()
  readonly #samples: Array<Sample> = []

  /**
   * Notes that a node has signed in. Its earlier report is dropped, because consent is given by the
   * process that signs in.
   */
  onLink(node: NodeKey, now: Now): void {
    const bucket = this.#rows.get(node)?.bucket ?? new TokenBucket(RATE_PER_SECOND, BURST, now.ms)
    this.#rows.set(node, { bucket, report: null, reportedAt: null })
  }

  onRemoved(node: NodeKey): void {
    this.#rows.delete(node)
  }

  onReport(node: NodeKey, text: string, now: Now): Either.Either<void, ReportRefused> {
    return Either.map(this.read(node, text, NodeReport.ReportText, now), (report) => {
      Object.assign(this.#rows.get(node) ?? {}, { report, reportedAt: now.epochMs })
    })
  }

  /** Decodes text from a node, within the node's limits. */
  read<A>(node: NodeKey, text: string, schema: Schema.Schema<A, string>, now: Now): Either.Either<A, ReportRefused> {
    const row = this.#rows.get(node)
    if (row === undefined) return refused("unknown_node", "this node has not signed in here, or was removed")
    if (!row.bucket.take(1, now.ms)) return refused("too_often", "reports come too often; send them less often")
    if (text.length > NodeReport.MAX_CHARS) {
      return refused("too_long", `a report has at most ${NodeReport.MAX_CHARS} characters`)
    }
    return Either.mapLeft(
      Schema.decodeEither(schema)(text),
      () =>
        new ReportRefused({ code: "invalid", message: "this relay cannot read it; run the same version on both sides" })
    )
  }

  /** Returns a node's report, or `null` if it has not reported since it signed in. */
  of(node: NodeKey): { readonly report: NodeReport.NodeReport; readonly at: number } | null {
    const { report = null, reportedAt = null } = this.#rows.get(node) ?? {}
    return report === null || reportedAt === null ? null : { report, at: reportedAt }
  }

  /** Takes a sample of the pairs of connected nodes. Called once a minute. */
  sample(at: number, seen: ReadonlyArray<Seen>): void {
    this.#samples.push({ at, direct: seen.filter(({ path }) => isDirect(path)).length, total: seen.length })
    if (this.#samples.length > MAX_SAMPLES) this.#samples.shift()
  }

  /** Samples, oldest first. */
  get samples(): ReadonlyArray<Sample> {
    return [...this.#samples]
  }
}

/** Selects one page of nodes, and counts all of them. */
export const pageOf = <
  N extends Pick<Network["nodes"][number], "name" | "report" | "role" | "since">
>(all: ReadonlyArray<N>, { after, find, limit }: Wanted) => {
  const connected = all.filter(({ since }) => since !== null)
  const found = all.filter(({ name }) => name.toLowerCase().includes(find.toLowerCase()))
  const following = found.filter(({ name }) => name > after).sort((a, b) => (a.name < b.name ? -1 : 1))
  const nodes = following.slice(0, limit)
  return {
    counts: {
      enrolled: all.length,
      connected: connected.length,
      reporting: connected.filter(({ report }) => report !== null).length,
      silent: connected.filter(({ report, role }) => report === null && role !== "relay").length,
      found: found.length
    },
    next: following.length > limit ? nodes.at(-1)?.name ?? null : null,
    nodes
  }
}

/** A node and its last report. The report is `null` if the node has sent none. */
export interface Told {
  readonly name: string
  readonly role: string
  readonly report: NodeReport.NodeReport | null
}

/**
 * Lists how each pair of nodes is connected. It takes the client's report, because the client
 * chooses the path. If the client has sent none, it takes the connector's.
 */
export const pairsOf = (nodes: Iterable<Told>): ReadonlyArray<Seen> => {
  const pairs = new Map<string, Seen>()
  const connectorsFirst = [...nodes].sort((left, right) =>
    Number(left.role === "client") - Number(right.role === "client")
  )
  for (const { name, report, role } of connectorsFirst) {
    for (const { name: peer, path, reason } of report?.peers ?? []) {
      pairs.set(role === "client" ? `${name} ${peer}` : `${peer} ${name}`, { path, reason })
    }
  }
  return [...pairs.values()]
}

/** Counts all pairs by path, and the relayed ones by reason, the most frequent first. */
export const summaryOf = (pairs: ReadonlyArray<Seen>) => {
  const paths: Partial<Record<PathKind, number>> = {}
  const reasons = new Map<string, number>()
  for (const { path, reason } of pairs) {
    paths[path] = (paths[path] ?? 0) + 1
    if (!isDirect(path)) reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
  }
  const relayed = Array.from(reasons, ([reason, count]) => ({ reason, count }))
  return { paths, relayed: relayed.toSorted((left, right) => right.count - left.count) }
}
