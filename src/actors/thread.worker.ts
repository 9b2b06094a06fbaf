/** Entry of every worker thread and of every child process. `scripts/build.mjs` bundles it. */
import { isMainThread } from "node:worker_threads"
import * as Pulse from "./runtime/liveness/Pulse.ts"

// Before the imports below, which take long where processor time is scarce.
Pulse.begin()
const { registry } = await import("./registry.ts")
const entry =
  await (isMainThread ? import("./runtime/thread/ProcessEntry.ts") : import("./runtime/thread/WorkerEntry.ts"))
entry.run(registry)
