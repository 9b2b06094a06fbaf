import { isMainThread } from "node:worker_threads"
import * as ProcessEntry from "../../../src/actors/runtime/thread/ProcessEntry.ts"
import * as WorkerEntry from "../../../src/actors/runtime/thread/WorkerEntry.ts"
import { registry } from "./TestActors.ts"

if (isMainThread) ProcessEntry.run(registry)
else WorkerEntry.run(registry)
