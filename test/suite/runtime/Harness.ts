import { Effect } from "effect"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type * as Restart from "../../../src/actors/runtime/supervisor/Restart.ts"
import * as Supervisor from "../../../src/actors/runtime/supervisor/Supervisor.ts"
import * as Processes from "../../../src/actors/runtime/thread/Processes.ts"
import * as Threads from "../../../src/actors/runtime/thread/Threads.ts"
import * as Telemetry from "../../../src/services/telemetry/Telemetry.ts"
import { HANG_MS } from "../../support/Hang.ts"
import { registry } from "./TestActors.ts"
import { Broken, BrokenImport, Echo, Front, Middle } from "./TestRpcs.ts"

export const QUIET: Telemetry.Settings = { ...Telemetry.DEFAULT, level: "None" }

export interface Kind {
  readonly name: string
  readonly placement: Supervisor.Options["placement"]
  readonly spawn: (entry: URL) => Supervisor.Options["spawn"]
  /** Thread that `echo` is on, and whether `middle` shares it. */
  readonly echoThread: string
  readonly shared: boolean
  readonly isThread: boolean
}

const one = { one: ["echo", "middle", "front"] }
const workers = (entry: URL) => Threads.workers({ entry, telemetry: QUIET })
const processes = (entry: URL) => Processes.processes({ entry, telemetry: QUIET })

export const kinds: ReadonlyArray<Kind> = [
  {
    name: "in-thread",
    placement: one,
    spawn: () => Threads.inThread(registry),
    echoThread: "one",
    shared: true,
    isThread: false
  },
  { name: "one worker thread", placement: one, spawn: workers, echoThread: "one", shared: true, isThread: true },
  { name: "isolated", placement: "isolated", spawn: workers, echoThread: "echo", shared: false, isThread: true },
  {
    name: "in child processes, and one worker thread",
    placement: { apart: ["echo"], beside: ["middle"], here: ["front"] },
    spawn: (entry) => (name) => (name === "here" ? workers : processes)(entry)(name),
    echoThread: "apart",
    shared: false,
    isThread: true
  }
]

const dir = mkdtempSync(join(tmpdir(), "actor-runtime-"))
process.on("exit", () => rmSync(dir, { recursive: true, force: true }))
let channels = 0
export const newChannel = () => join(dir, String(++channels))

/** Fast enough for tests, and without patience. The limit and the shape are the default's. */
export const restart: Restart.Policy = {
  first: "10 millis",
  max: "100 millis",
  forgetAfter: "10 seconds",
  limit: 5,
  patience: 0
}

/** `more`: of every actor. */
export const start = (
  kind: Kind,
  entry: URL,
  channel = newChannel(),
  deadlines = {},
  more: Pick<Supervisor.ActorSpec, "optional"> = {}
) =>
  Supervisor.make({
    actors: [
      { address: Echo, uses: [], config: { channel }, ...more },
      { address: Middle, uses: [Echo], config: { channel }, ...more },
      { address: Front, uses: [Middle], config: { channel }, ...more }
    ],
    placement: kind.placement,
    spawn: kind.spawn(entry),
    restart,
    deadlines
  })

export const startUp = (kind: Kind, entry: URL, channel?: string) =>
  start(kind, entry, channel).pipe(Effect.tap((supervisor) => supervisor.awaitUp), Effect.map(patient))

/** Asks of this supervisor wait for as long as a busy host may need, unless they say otherwise. */
const patient = (supervisor: Supervisor.Supervisor): Supervisor.Supervisor => ({
  ...supervisor,
  ref: (address) => {
    const ref = supervisor.ref(address)
    return { ...ref, ask: (call, options) => ref.ask(call, { deadline: HANG_MS, ...options }) }
  }
})

export const startBroken = (
  spawn: Supervisor.Options["spawn"],
  how: string,
  options: Partial<Supervisor.Options> = {}
) =>
  Supervisor.make({
    actors: [
      how === "import"
        ? { address: BrokenImport, uses: [], config: {} }
        : { address: Broken, uses: [], config: { how } }
    ],
    placement: "isolated",
    spawn,
    restart: { ...restart, limit: 2 },
    ...options
  })

/** What actors have told on the channel, in order. */
export const told = (channel: string) => readFileSync(channel, "utf8").split("\n").filter((line) => line !== "")

/** Polls until it holds; fails the test by its timeout otherwise. */
export const eventually = <E, R>(check: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.asVoid(Effect.repeat(Effect.delay(check, "10 millis"), { until: (held) => held }))
