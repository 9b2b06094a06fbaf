/** Entry of every worker thread, bundled by `scripts/build.mjs`. */
import { registry } from "./registry.ts"
import * as WorkerEntry from "./runtime/WorkerEntry.ts"

WorkerEntry.run(registry)
