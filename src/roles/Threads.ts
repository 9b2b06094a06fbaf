/** How the actors of a process are started, whatever its role: worker threads from the bundled entry. */
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import type { Any } from "../actors/runtime/ActorAddress.ts"
import * as Supervisor from "../actors/runtime/Supervisor.ts"
import * as Threads from "../actors/runtime/Threads.ts"
import { USES } from "../actors/Wiring.ts"
import type { Config } from "../services/config/Config.ts"
import type { Settings } from "../services/Telemetry.ts"

/** Most of a data thread's garbage dies young: as `--max-semi-space-size=64` for the main thread (three semi-spaces). */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 192 }

const LEVELS = { trace: "Trace", debug: "Debug", info: "Info", warn: "Warning", error: "Error" } as const

export const telemetryOf = (config: Config, format: Settings["format"]): Settings => ({
  format,
  level: LEVELS[config.logLevel],
  otlp: config.telemetry.otlp,
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

export const start = (options: {
  readonly config: Config
  readonly actors: ReadonlyArray<Any>
  /** By actor name, encoded. */
  readonly configs: Readonly<Record<string, unknown>>
  readonly placement: Readonly<Record<string, ReadonlyArray<string>>>
  readonly telemetry: Settings
}) =>
  Effect.gen(function*() {
    const { actors, config, configs, placement, telemetry } = options
    const supervisor = yield* Supervisor.make({
      actors: actors.map((address) => ({
        address,
        uses: USES[address.name] ?? [],
        config: configs[address.name] ?? {}
      })),
      placement: config.placement === "default" ? placement : config.placement,
      spawn: Threads.workers({ entry: entry(), resourceLimits: RESOURCE_LIMITS, telemetry })
    })
    yield* supervisor.awaitUp
    return supervisor
  })
