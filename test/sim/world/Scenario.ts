/** What befalls a simulated session, at random but from a seed, and what must be so at its end. */
import * as fc from "fast-check"
import { expected, isMet, type Reach } from "../../natlab/NatPairs.ts"
import { NAT_NAMES, type NatName } from "./Nats.ts"

export type Who = "client" | "connector" | "both"
/** Times in ms. */
export type Command =
  /** To a network of this kind, with another address. */
  | { readonly t: "move"; readonly who: Who; readonly to: NatName }
  /** The translator forgets its mappings; `newWan`: and has another outside address. */
  | { readonly t: "rebind"; readonly who: Who; readonly newWan: boolean }
  /** Nothing comes or goes at this node, and nobody tells it. */
  | { readonly t: "linkDown"; readonly who: Who; readonly ms: number }
  /** Nothing goes directly between the two. */
  | { readonly t: "partition"; readonly ms: number }
  | { readonly t: "relayRestart"; readonly ms: number }
  /** Path choice (`whole nodes`: any of the actors) dies and is started anew. */
  | { readonly t: "crash"; readonly who: Who; readonly actor: number }
  /** `p` in 100 packets are lost everywhere. */
  | { readonly t: "loss"; readonly p: number; readonly ms: number }
  /** The clock jumps. */
  | { readonly t: "sleep"; readonly who: Who; readonly ms: number }
  /** No flow is open. */
  | { readonly t: "idle"; readonly ms: number }

export interface Scenario {
  readonly client: NatName
  readonly connector: NatName
  /** From each node to the middle of the Internet. */
  readonly clientMs: number
  readonly connectorMs: number
  /** That the direct way is longer than by the relay; 0: it is as long. */
  readonly detourMs: number
  /** Of translators. */
  readonly lifetimeMs: number
  /** How much later than the relay signaling comes back. 0 by default. */
  readonly signalingLagMs?: number
  readonly seed: number
  /** Each so long after the one before. */
  readonly events: ReadonlyArray<readonly [afterMs: number, command: Command]>
}

/** One that failed, and what was the matter. */
export interface Kept {
  readonly why: string
  readonly scenario: Scenario
}

const who = fc.constantFrom<Who>("client", "connector", "both")
const kind = fc.constantFrom(...NAT_NAMES)
const ms = (max: number) => fc.integer({ min: 1, max })

const commandOf = (longestMs: number): fc.Arbitrary<Command> =>
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ t: fc.constant("move" as const), who, to: kind }) },
    { weight: 5, arbitrary: fc.record({ t: fc.constant("rebind" as const), who, newWan: fc.boolean() }) },
    { weight: 2, arbitrary: fc.record({ t: fc.constant("linkDown" as const), who, ms: ms(8_000) }) },
    { weight: 3, arbitrary: fc.record({ t: fc.constant("partition" as const), ms: ms(8_000) }) },
    { weight: 3, arbitrary: fc.record({ t: fc.constant("relayRestart" as const), ms: ms(4_000) }) },
    { weight: 3, arbitrary: fc.record({ t: fc.constant("crash" as const), who, actor: fc.nat(2) }) },
    {
      weight: 2,
      arbitrary: fc.record({ t: fc.constant("loss" as const), p: fc.integer({ min: 1, max: 60 }), ms: ms(4_000) })
    },
    { weight: 1, arbitrary: fc.record({ t: fc.constant("sleep" as const), who, ms: ms(Math.min(30_000, longestMs)) }) },
    { weight: 1, arbitrary: fc.record({ t: fc.constant("idle" as const), ms: ms(longestMs) }) }
  )

/** `longestMs`: of idle time. */
export const scenario = (maxEvents: number, longestMs = 90_000): fc.Arbitrary<Scenario> =>
  fc.record({
    client: kind,
    connector: kind,
    clientMs: fc.integer({ min: 1, max: 60 }),
    connectorMs: fc.integer({ min: 1, max: 60 }),
    detourMs: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(200) }),
    lifetimeMs: fc.constantFrom(30_000, 60_000, 180_000),
    seed: fc.integer(),
    events: fc.array(fc.tuple(ms(3_000), commandOf(longestMs)), { maxLength: maxEvents })
  })

/** By which kind of path the session must be carried in the end; `any`: the relay is as good. */
export interface Goal {
  readonly reach: Reach
  readonly path: "direct" | "relay" | "any"
}

/** Where the two are at last, and which way is the shorter one. */
export const goalOf = (last: { readonly client: NatName; readonly connector: NatName }, detourMs: number): Goal => {
  const reach = expected(last)
  if (reach === "relay") return { reach, path: "relay" }
  if (reach !== "direct") return { reach, path: "any" }
  return { reach, path: detourMs > 0 ? "relay" : "direct" }
}

export const meets = ({ path, reach }: Goal, chosen: "direct" | "relay"): boolean =>
  path === "any" ? isMet(reach, chosen === "direct" ? chosen : "relay-udp") : path === chosen

/** How a scenario ended. Times: ms after the last disturbance; null: not before the end. */
export interface Outcome {
  /** The flow went on. */
  readonly answeredMs: number | null
  /** The session went by the path that it must. */
  readonly settledMs: number | null
  /** At the end, and why. */
  readonly path: string
  /** The longest that the flow had to wait. */
  readonly stallMs: number
  /** What was broken, in words. */
  readonly faults: ReadonlyArray<string>
}
