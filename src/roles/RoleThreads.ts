/** Starts the actors of a process in worker threads or child processes, whatever its role. */
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { RelayForwarder } from "../actors/forwarder/RelayForwarderRpcs.ts"
import { StreamMux } from "../actors/mux/StreamMuxRpcs.ts"
import type { Any } from "../actors/runtime/actor/ActorAddress.ts"
import * as Supervisor from "../actors/runtime/supervisor/Supervisor.ts"
import * as Processes from "../actors/runtime/thread/Processes.ts"
import * as Threads from "../actors/runtime/thread/Threads.ts"
import { APART, USES } from "../actors/Wiring.ts"
import type { Config } from "../services/config/Config.ts"
import type { Settings } from "../services/telemetry/Telemetry.ts"
import * as Binding from "../transport/quic/engine/Binding.ts"

/**
 * V8 limits of a thread that moves packets. Most of its garbage dies young, so the young generation
 * is large: as with `--max-semi-space-size=64` for a main thread (three semi-spaces).
 */
const PACKET_LIMITS = { maxYoungGenerationSizeMb: 192 }
/**
 * V8 limits of other threads. A larger young generation would only fill with garbage: 30 MB more in
 * a minute.
 */
const OTHER_LIMITS = { maxYoungGenerationSizeMb: 24 }
/**
 * V8 limits of a node's other threads. V8 lets a heap grow further between collections if its limit
 * is higher. Without a limit a node's control thread with 30 MB of live data grew to 125 MB in 130
 * roams within six minutes. A relay's threads have no such limit, as they may serve thousands of
 * nodes.
 */
const NODE_LIMITS = { ...OTHER_LIMITS, maxOldGenerationSizeMb: 512 }
const MOVES_PACKETS: ReadonlySet<string> = new Set([StreamMux.name, RelayForwarder.name])

const LEVELS = { trace: "Trace", debug: "Debug", info: "Info", warn: "Warning", error: "Error" } as const

export const levelOf = ({ logLevel }: Config): Settings["level"] => LEVELS[logLevel]

/** Telemetry settings of a process, from its configuration. */
export const telemetryOf = (config: Config, format: Settings["format"]): Settings => ({
  format,
  level: levelOf(config),
  otlp: config.telemetry.otlp,
  sample: config.telemetry.sample,
  serviceName: `sallyport-${config.role}`
})

/** Finds `dist/actors/thread.worker.js`, from wherever this module was bundled to. */
const entry = (): URL => {
  for (const up of ["./", "../", "../../dist/", "../dist/"]) {
    const url = new URL(`${up}actors/thread.worker.js`, import.meta.url)
    if (existsSync(fileURLToPath(url))) return url
  }
  throw new Error("dist/actors/thread.worker.js is missing; run: npm run build")
}

/**
 * Finds the file at each start of a thread, because an upgrade may remove it for a moment. Fails
 * with the reason as text.
 */
const findEntry = Effect.try({ try: entry, catch: (cause) => (cause instanceof Error ? cause.message : String(cause)) })

/** Starts the actors of a role. Succeeds when all of them are up. */
export const start = (options: {
  readonly config: Config
  readonly actors: ReadonlyArray<Any>
  /**
   * Encoded configurations by actor name. They are read again whenever an actor starts, so that a
   * reloaded value survives the actor's restart.
   */
  readonly configs: Readonly<Record<string, unknown>>
  readonly placement: Readonly<Record<string, ReadonlyArray<string>>>
  readonly telemetry: Settings
}) =>
  Effect.gen(function*() {
    const { actors, config, configs, placement } = options
    Binding.share()
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
