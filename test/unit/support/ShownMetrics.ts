/** An actor's own metrics, for tests of one actor without the runtime. */
import { Effect, Layer } from "effect"
import * as Self from "../../../src/actors/runtime/actor/Self.ts"
import type * as Metrics from "../../../src/services/telemetry/Metrics.ts"

/** `layer` gives the actor its `Self`. `valueOf` reads the first point of a metric that it exposes now. */
export const make = () => {
  const sources: Array<Metrics.Source> = []
  const layer = Self.layerTest().pipe(Layer.project(
    Self.Self,
    Self.Self,
    (self) => Self.Self.of({ ...self, exposeMetrics: (source) => Effect.sync(() => void sources.push(source)) })
  ))
  const valueOf = (name: string): number | undefined => {
    const found = sources.flatMap((source) => source()).find((family) => family.name === name)
    return found === undefined || found._tag === "Histogram" ? undefined : found.points[0]?.value
  }
  return { layer, valueOf }
}
