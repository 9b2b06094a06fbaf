/** How the actors of a process are started, whatever its role: worker threads from the bundled entry. */
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { RelayForwarder } from "../actors/RelayForwarderRpcs.ts"
import type { Any } from "../actors/runtime/ActorAddress.ts"
import * as Processes from "../actors/runtime/Processes.ts"
import * as Supervisor from "../actors/runtime/Supervisor.ts"
import * as Threads from "../actors/runtime/Threads.ts"
import { StreamMux } from "../actors/StreamMuxRpcs.ts"
import { APART, USES } from "../actors/Wiring.ts"
import type { Config } from "../services/config/Config.ts"
import type { Settings } from "../services/Telemetry.ts"

/** Most garbage of a thread that moves packets dies young: as `--max-semi-space-size=64` for the main thread (three semi-spaces). */
const PACKET_LIMITS = { maxYoungGenerationSizeMb: 192 }
/** Elsewhere so much room would only fill with garbage: 30 MB more in a minute. */
const OTHER_LIMITS = { maxYoungGenerationSizeMb: 24 }
/**
 * V8 lets a heap grow the further before it collects, the more it may have in all: without a bound a node's control thread, of which
 * 30 MB live, came to 125 in 130 roams within six minutes. A relay's may hold thousands of nodes.
 */
const NODE_LIMITS = { ...OTHER_LIMITS, maxOldGenerationSizeMb: 512 }
const MOVES_PACKETS: ReadonlySet<string> = new Set([StreamMux.name, RelayForwarder.name])

const LEVELS = { trace: "Trace", debug: "Debug", info: "Info", warn: "Warning", error: "Error" } as const

export const levelOf = ({ logLevel }: Config): Settings["level"] => LEVELS[logLevel]

export const telemetryOf = (config: Config, format: Settings["format"]): Settings => ({
  format,
  level: levelOf(config),
  otlp: config.telemetry.otlp,
  sample: config.telemetry.sample,
  serviceName: `sallyport-${config.role}`
})

/** `dist/actors/thread.worker.js`, from wherever this module was bundled to. */
const entry = (): URL => {
  for (const up of ["./", "../", "../../dist/", "../dist/"]) {
    const url = new URL(`${up}actors/thread.worker.js`, import.meta.url)
    if (existsSync(fileURLToPath(url))) return url
  }
  throw new Error("dist/actors/thread.worker.js is missing; run: npm run build")
}

/** Looked for at each start of a thread: an upgrade may take the file away for a moment. */
const findEntry = Effect.try({ try: entry, catch: (cause) => (cause instanceof Error ? cause.message : String(cause)) })

export const start = (options: {
  readonly config: Config
  readonly actors: ReadonlyArray<Any>
  /** By actor name, encoded. Read again whenever an actor starts, so a reload that changes one outlasts the actor's death. */
  readonly configs: Readonly<Record<string, unknown>>
  readonly placement: Readonly<Record<string, ReadonlyArray<string>>>
  readonly telemetry: Settings
}) =>
  Effect.gen(function*() {
    const { actors, config, configs, placement } = options
    let telemetry = options.telemetry
    const placed = config.placement === "default" ? placement : config.placement
    const actorsOn = (thread: string) => (placed === "isolated" ? [thread] : placed[thread] ?? [])
    const limitsOf = (thread: string) => {
      const names = actorsOn(thread)
      if (names.some((name) => MOVES_PACKETS.has(name))) return PACKET_LIMITS
      return config.role === "relay" ? OTHER_LIMITS : NODE_LIMITS
    }
    const supervisor = yield* Supervisor.make({
      actors: actors.map((address) => ({
        address,
        uses: USES[address.name] ?? [],
        get config() {
          return configs[address.name] ?? {}
        },
        optional: APART.has(address.name)
      })),
      placement: placed,
      spawn: (thread) =>
        Effect.flatMap(findEntry, (entry) =>
          actorsOn(thread).some((name) => APART.has(name))
            ? Processes.processes({ entry, telemetry })(thread)
            : Threads.workers({ entry, resourceLimits: limitsOf(thread), telemetry })(thread))
    })
    yield* supervisor.awaitUp
    return {
      ...supervisor,
      tune: (settings) => {
        telemetry = { ...telemetry, ...settings }
        return supervisor.tune(settings)
      }
    } satisfies Supervisor.Supervisor
  })
