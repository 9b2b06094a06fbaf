import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Queue, Scope } from "effect"
import { afterAll, beforeAll } from "vitest"
import * as Lab from "./Lab.ts"
import * as NatPairs from "./NatPairs.ts"
import * as PairLab from "./PairLab.ts"

/** Each kind of network once on each side, with those of `paths.test.ts`. All of them: `npm run natlab:matrix`. */
const PAIRS: ReadonlyArray<NatPairs.Pair> = [
  { client: "symmetric", connector: "port-restricted" },
  { client: "port-restricted", connector: "udp-blocked" },
  { client: "firewall", connector: "eim-apdf" },
  { client: "full-cone", connector: "symmetric-pool" },
  { client: "addr-restricted", connector: "symmetric" },
  { client: "eim-apdf", connector: "addr-restricted" },
  { client: "symmetric-pool", connector: "full-cone" },
  { client: "cgn", connector: "firewall" },
  { client: "v6-firewall", connector: "v6-firewall" }
]
const LABS = 2 // side by side: those that stay relayed mostly wait

const check = (outcome: PairLab.Outcome) => {
  const { expected, path, reason, relayBytesPerByte, remote } = outcome
  assert.isTrue(NatPairs.isMet(expected, path), `must be ${expected}, is ${path}: ${reason}`)
  assert.isTrue(PairLab.isSettled(reason), `no reason: ${reason}`)
  assert.isTrue(PairLab.isTrue(outcome), `${path}, but the relay carried ${relayBytesPerByte} of each byte`)
  if (outcome.pair === "v6-firewall×v6-firewall") assert.match(remote ?? "", /^2001:db8:3:100::10\|/)
}

describe.skipIf(!Lab.isPossible)("pairs of networks", () => {
  const scope = Effect.runSync(Scope.make())
  const free = Effect.runSync(Queue.unbounded<Lab.Lab>())
  beforeAll(() => {
    const lab = Effect.flatMap(PairLab.make("plain"), (it) => free.offer(it))
    const labs = Array.from({ length: LABS }, () => lab)
    return Effect.runPromise(Scope.extend(Effect.all(labs, { concurrency: LABS, discard: true }), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  /** In a lab that no other test uses now; what needs another topology makes one in its place. */
  const trial = (pair: NatPairs.Pair) =>
    Effect.acquireUseRelease(
      free.take,
      (plain) => {
        const topology = PairLab.topologyOf(pair)
        const lab = topology === "plain" ? Effect.succeed(plain) : PairLab.make(topology)
        return Effect.scoped(Effect.flatMap(lab, (it) => PairLab.trial(it, pair)))
      },
      (plain) => free.offer(plain)
    )

  for (const pair of PAIRS) {
    it.live(`${NatPairs.nameOf(pair)}: ${NatPairs.expected(pair)}`, () => Effect.map(trial(pair), check), {
      concurrent: true
    })
  }
})
