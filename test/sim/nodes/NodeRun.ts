/** One scenario played by two whole nodes, and judged. */
import { keyOf } from "../../../src/protocol/path/PathRef.ts"
import { SOCKETS } from "../../../src/protocol/path/PortGuess.ts"
import type { NatName } from "../world/Nats.ts"
import { type Command, goalOf, meets, type Outcome, type Scenario, type Who } from "../world/Scenario.ts"
import type { Identities } from "./Identities.ts"
import { NodeWorld } from "./NodeWorld.ts"

/** From when all is whole again. A node that was relayed by TCP looks for UDP again within half a minute. */
export const ANSWERED_MS = 8_000
export const SETTLED_MS = 120_000
const STEADY_MS = 1_000
const STEP_MS = 100

export const play = async (
  scenario: Scenario,
  identities: Identities,
  trace?: (line: string) => void
): Promise<Outcome> => {
  const { clientMs, connectorMs, detourMs, lifetimeMs, seed } = scenario
  const last: Record<"client" | "connector", NatName> = { client: scenario.client, connector: scenario.connector }
  const delayOf = { client: clientMs, connector: connectorMs }
  const placeOf = (role: "client" | "connector") => ({ nat: last[role], delayMs: delayOf[role], lifetimeMs })
  const world = new NodeWorld({ client: placeOf("client"), connector: placeOf("connector"), seed, identities })
  world.detourMs = detourMs
  world.signalingLagMs = scenario.signalingLagMs ?? 0
  const { flow, time } = world
  const undo = time.install()
  try {
    await world.start()
    const runFor = async (ms: number) => {
      await time.runUntil(world.now + ms)
      for (const { plane } of world.nodes) {
        if (plane.guessSockets > SOCKETS + 1) world.faults.push("more sockets than SOCKETS")
      }
    }
    for (const [afterMs, command] of scenario.events) {
      await runFor(afterMs)
      trace?.(`${world.now.toFixed(0)} ${JSON.stringify(command)} ${describe(world)} answered ${flow.answeredAt}`)
      await befall(world, command, (role, to) => {
        last[role] = to
        return placeOf(role)
      })
    }
    await runFor(1)
    const calmAt = Math.max(world.now, world.calmAt)
    await runFor(calmAt - world.now)
    const goal = goalOf(last, detourMs)
    let answeredMs: number | null = null
    let settledMs: number | null = null
    let steadyFrom = Infinity
    const kinds = () => world.nodes.map(({ plane: { session } }) => session?.path.kind ?? "relay")
    while (world.now - calmAt < SETTLED_MS && world.faults.length === 0) {
      await runFor(STEP_MS)
      trace?.(`${world.now.toFixed(0)} ${describe(world)} answered ${flow.answeredAt}`)
      if (answeredMs === null && flow.answeredAt > calmAt) answeredMs = flow.answeredAt - calmAt
      const fine = answeredMs !== null && world.now - flow.answeredAt < 1_000 && kinds().every((it) => meets(goal, it))
      if (!fine) steadyFrom = Infinity
      else if (steadyFrom === Infinity) steadyFrom = world.now
      if (world.now - steadyFrom < STEADY_MS) continue
      settledMs = steadyFrom - calmAt
      break
    }
    const outcome = { answeredMs, settledMs, path: kinds().join(), stallMs: flow.stallMs, faults: [...world.faults] }
    await world.stop()
    return outcome
  } finally {
    undo()
  }
}

type Node = NodeWorld["nodes"][number]
type Arrive = (role: "client" | "connector", to: NatName) => Node["host"]["place"]

const befall = async (world: NodeWorld, command: Command, arrive: Arrive): Promise<void> => {
  const affected = (who: Who) => world.nodes.filter(({ host }) => who === "both" || who === host.role)
  switch (command.t) {
    case "move":
      for (const node of affected(command.who)) world.move(node, arrive(node.host.role, command.to))
      return
    case "rebind":
      for (const node of affected(command.who)) world.rebind(node, command.newWan)
      return
    case "linkDown":
      for (const node of affected(command.who)) world.linkDown(node, command.ms)
      return
    case "partition":
      world.directDownUntil = Math.max(world.directDownUntil, world.now + command.ms)
      return
    case "relayRestart":
      return world.relayRestart(command.ms)
    case "crash":
      for (const node of affected(command.who)) await world.crash(node, command.actor)
      return
    case "loss":
      world.loss = command.p / 100
      world.lossUntil = world.now + command.ms
      return
    case "sleep":
      for (const node of affected(command.who)) world.sleep(node, command.ms)
      return
    case "idle":
      return world.idle(command.ms)
  }
}

const describe = (world: NodeWorld): string =>
  world.nodes.map(({ plane: { router, session } }) =>
    `${session === null ? "none" : keyOf(session.path)} by ${router.leg?.kind ?? "no leg"}`
  ).join(" | ")
