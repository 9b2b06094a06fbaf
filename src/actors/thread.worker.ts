/** Entry of every worker thread and of every child process, bundled by `scripts/build.mjs`. */
import { isMainThread } from "node:worker_threads"
import * as Pulse from "./runtime/Pulse.ts"

Pulse.begin() // before the imports below, which take long where processor time is short
const { registry } = await import("./registry.ts")
const entry = await (isMainThread ? import("./runtime/ProcessEntry.ts") : import("./runtime/WorkerEntry.ts"))
entry.run(registry)
