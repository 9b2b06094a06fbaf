import * as WorkerEntry from "../../../src/actors/runtime/WorkerEntry.ts"
import { registry } from "./TestActors.ts"

WorkerEntry.run(registry)
