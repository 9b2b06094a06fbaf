/** One scenario played by two machines, and judged. */
import { MAX_HISTORY } from "../../../src/protocol/path/PathMachine.ts"
import { keyOf } from "../../../src/protocol/path/PathRef.ts"
import { MAX_TRACKS } from "../../../src/protocol/path/PathTable.ts"
import { MAX_PROBES, SOCKETS } from "../../../src/protocol/path/PortGuess.ts"
import type { NatName } from "./Nats.ts"
import type { PairNode } from "./PairNode.ts"
import { PairWorld } from "./PairWorld.ts"
import { type Command, goalOf, meets, type Outcome, type Scenario, type Who } from "./Scenario.ts"

/** From when all is whole again: a silent path is given up, a node bound anew, and a round of probes is over. */
export const ANSWERED_MS = 5_000
/** The same until the path is the one that it must be: a path that fell is held back for up to 30 s, one that lost for 80 s. */
export const SETTLED_MS = 120_000
/** It must be so for so long. */
const STEADY_MS = 1_000
const STEP_MS = 100

export const play = (scenario: Scenario, trace?: (line: string, world: PairWorld) => void): Outcome => {
  const { clientMs, connectorMs, detourMs, lifetimeMs, seed } = scenario
  const last: Record<"client" | "connector", NatName> = { client: scenario.client, connector: scenario.connector }
  const delayOf = { client: clientMs, connector: connectorMs }
  const placeOf = (role: "client" | "connector") => ({ nat: last[role], delayMs: delayOf[role], lifetimeMs })
  const world = new PairWorld({ client: placeOf("client"), connector: placeOf("connector"), seed })
  world.detourMs = detourMs
  const { time } = world
  const faults = new Set<string>()

  const check = () => {
    for (const node of world.nodes) {
      if (node.machine.history.length > MAX_HISTORY) faults.add("more decisions are kept than MAX_HISTORY")
      if (node.machine.samples(time.now).length > MAX_TRACKS) faults.add("more paths than MAX_TRACKS")
      if (node.sockets.size > SOCKETS) faults.add("more sockets than SOCKETS")
      if (!node.answered.has(keyOf(node.path)) && node.role === "client") faults.add("selected what never answered")
      if (node.machine.reason.length === 0) faults.add("no reason")
    }
  }
  const runFor = (ms: number) => {
    const until = time.now + ms
    time.runUntil(until)
    check()
  }
  for (const [afterMs, command] of scenario.events) {
    runFor(afterMs)
    trace?.(`${time.now.toFixed(0)} ${JSON.stringify(command)} ${describe(world)}`, world)
    befall(world, command, (role, to) => {
      last[role] = to
      return placeOf(role)
    })
  }
  runFor(1)
  const calmAt = Math.max(time.now, world.calmAt)
  time.runUntil(calmAt)
  const goal = goalOf(last, detourMs)
  let answeredMs: number | null = null
  let settledMs: number | null = null
  let steadyFrom = Infinity
  while (time.now - calmAt < SETTLED_MS) {
    runFor(STEP_MS)
    trace?.(`${time.now.toFixed(0)} ${describe(world)}`, world)
    if (answeredMs === null && world.answeredAt > calmAt) answeredMs = world.answeredAt - calmAt
    const paths = world.nodes.map(({ path }) => path.kind)
    const fine = answeredMs !== null && time.now - world.answeredAt < 1_000 && paths.every((path) => meets(goal, path))
    if (!fine) steadyFrom = Infinity
    else if (steadyFrom === Infinity) steadyFrom = time.now
    if (time.now - steadyFrom < STEADY_MS) continue
    settledMs = steadyFrom - calmAt
    break
  }
  if (world.client.guesses + world.connector.guesses > MAX_PROBES * (1 + scenario.events.length)) {
    faults.add("more guesses than MAX_PROBES an attempt")
  }
  return {
    answeredMs,
    settledMs,
    path: `${world.client.path.kind}: ${world.client.machine.reason}`,
    stallMs: world.stallMs,
    faults: [...faults]
  }
}

type Arrive = (role: "client" | "connector", to: NatName) => PairNode["place"]

const befall = (world: PairWorld, command: Command, arrive: Arrive): void => {
  const { now } = world.time
  const each = (who: Who, act: (node: PairNode) => void) => {
    for (const node of world.nodes) if (who === "both" || who === node.role) act(node)
  }
  switch (command.t) {
    case "move":
      return each(command.who, (node) => world.move(node, arrive(node.role, command.to)))
    case "rebind":
      return each(command.who, (node) => world.rebind(node, command.newWan))
    case "linkDown":
      return each(command.who, (node) => (node.downUntil = Math.max(node.downUntil, now + command.ms)))
    case "partition":
      world.directDownUntil = Math.max(world.directDownUntil, now + command.ms)
      return
    case "relayRestart":
      return world.relayDown(command.ms)
    case "crash":
      return each(command.who, (node) => node.isAsleep() || world.crash(node))
    case "loss":
      world.loss = command.p / 100
      world.lossUntil = now + command.ms
      return
    case "sleep":
      return each(command.who, (node) => world.sleep(node, command.ms))
    case "idle":
      return world.idle(command.ms)
  }
}

const describe = (world: PairWorld): string =>
  world.nodes.map(({ bound, machine, path }) =>
    `${keyOf(path)} (${machine.reason}${bound === null ? ", unbound" : ""})`
  ).join(" | ") + ` answered ${world.answeredAt.toFixed(0)}`
