/** Entry of every worker thread and of every child process, bundled by `scripts/build.mjs`. */
import { isMainThread } from "node:worker_threads"
import { registry } from "./registry.ts"
import * as ProcessEntry from "./runtime/ProcessEntry.ts"
import * as WorkerEntry from "./runtime/WorkerEntry.ts"

if (isMainThread) ProcessEntry.run(registry)
else WorkerEntry.run(registry)
