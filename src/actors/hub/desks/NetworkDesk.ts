/**
 * The view of the whole network. It takes the reports of nodes, asks a node for its doctor's
 * findings, and answers with all of it.
 */
import { Clock, Deferred, Duration, Effect, Schedule } from "effect"
import * as HostName from "../../../protocol/bytes/HostName.ts"
import * as NodeReport from "../../../protocol/relay/NodeReport.ts"
import type { NodeKey } from "../../../protocol/trust/NodeKey.ts"
import type * as Directory from "../../../services/directory/Directory.ts"
import * as Crypto from "../../../services/host/Crypto.ts"
import * as Self from "../../runtime/actor/Self.ts"
import type * as Board from "../Board.ts"
import { NetworkView, type Now, pageOf, pairsOf, summaryOf } from "../NetworkView.ts"
import { ExamineFailed, HubError, type Wanted } from "../SignalingHubRpcs.ts"

/** Time between two samples of the network. */
const SAMPLE_EVERY = "1 minute"
/** How long a node may take to answer with its findings. */
const ANSWER_DEADLINE = Duration.seconds(5)

/** Options of {@link make}. */
export interface Options {
  readonly directory: typeof Directory.Directory.Service
  readonly board: ReturnType<typeof Board.make>
}

const now: Effect.Effect<Now> = Effect.zipWith(
  Clock.currentTimeMillis,
  Clock.currentTimeNanos,
  (epochMs, nanos) => ({ epochMs, ms: Number(nanos / 1_000_000n) })
)

/**
 * Makes the desk that answers questions about the network. It takes a sample of all pairs each
 * minute until the scope ends.
 */
export const make = Effect.fnUntraced(function*({ board, directory }: Options) {
  const view = new NetworkView()
  const questions = new Map<
    string,
    { readonly node: NodeKey; readonly answer: Deferred.Deferred<NodeReport.Findings> }
  >()

  const pairs = () =>
    pairsOf(
      Array.from(board.links.values(), ({ member }) => ({ ...member, report: view.of(member.key)?.report ?? null }))
    )

  const overview = Effect.fn("NetworkDesk.overview")(function*(wanted: Wanted) {
    const { epochMs } = yield* now
    const enrolled = yield* directory.listNodes
    const nodes = enrolled.map(({ key, network, role, shown: name }) => {
      const told = view.of(key)
      const since = board.links.get(key)?.since ?? null
      return { name, role, network, since, reportedAt: told?.at ?? null, report: told?.report ?? null }
    })
    const page = pageOf(nodes, wanted)
    const shown = new Map(enrolled.map(({ name, shown }) => [name, shown]))
    const named = page.nodes.map((node) => ({ ...node, report: node.report && withNames(node.report, shown) }))
    return { at: epochMs, ...page, nodes: named, ...summaryOf(pairs()), samples: view.samples }
  }, Effect.mapError(({ message }) => new HubError({ message })))

  const examine = Effect.fn("NetworkDesk.examine")(function*(name: string) {
    const fail = (message: string) => new ExamineFailed({ message })
    const enrolled = yield* Effect.mapError(directory.listNodes, ({ message }) => fail(message))
    const node = enrolled.find((one) => HostName.isSame(one.name, name))?.key
    if (node === undefined) {
      return yield* fail(`no node ${name} is enrolled here; sallyport node list says which are`)
    }
    if (!board.links.has(node)) {
      return yield* fail(`${name} is not connected; start it, or run sallyport doctor on its own machine`)
    }
    if (view.of(node) === null) {
      return yield* fail(
        `${name} does not report; write telemetry: {report: true} in its configuration and restart it, ` +
          "or run sallyport doctor on its own machine"
      )
    }
    const question = Crypto.randomHex(16)
    const answer = yield* Deferred.make<NodeReport.Findings>()
    questions.set(question, { node, answer })
    board.send(node, { _tag: "Examine", question })
    return yield* Deferred.await(answer).pipe(
      Effect.timeoutFail({
        duration: ANSWER_DEADLINE,
        onTimeout: () => fail(`${name} does not answer within ${Duration.format(ANSWER_DEADLINE)}; see its own log`)
      }),
      Effect.ensuring(Effect.sync(() => questions.delete(question)))
    )
  })

  yield* Self.fork(Effect.repeat(
    Effect.map(Clock.currentTimeMillis, (at) => view.sample(at, pairs())),
    Schedule.spaced(SAMPLE_EVERY)
  ))
  return {
    overview,
    examine,
    onLink: (node: NodeKey) => Effect.map(now, (at) => view.onLink(node, at)),
    onRemoved: (node: NodeKey) => view.onRemoved(node),
    report: (node: NodeKey, text: string) => Effect.flatMap(now, (at) => view.onReport(node, text, at)),
    /** Takes a node's answer. An answer that nobody waits for any more is ignored. */
    findings: (node: NodeKey, question: string, text: string) =>
      Effect.gen(function*() {
        const findings = yield* view.read(node, text, NodeReport.FindingsText, yield* now)
        const asked = questions.get(question)
        if (asked?.node === node) yield* Deferred.succeed(asked.answer, findings)
      })
  }
})

/** Shows the peers of a report as the administrator wrote their names. */
const withNames = (report: NodeReport.NodeReport, shown: ReadonlyMap<string, string>): NodeReport.NodeReport => ({
  ...report,
  peers: report.peers.map((peer) => ({ ...peer, name: shown.get(peer.name) ?? peer.name }))
})
