/** A thread that is inside libSQL nearly all the time: it asks, again and again, the database that its name says. */
import { Effect } from "effect"
import { workerData } from "node:worker_threads"
import * as WorkerEntry from "../../../src/actors/runtime/thread/WorkerEntry.ts"
import * as DirectoryDb from "../../../src/services/directory/DirectoryDb.ts"

const { thread: path } = workerData as { readonly thread: string }

WorkerEntry.run({})
Effect.runFork(Effect.scoped(Effect.gen(function*() {
  const { read } = yield* DirectoryDb.make(path)
  const queries = Effect.repeatN(read((sql) => sql`SELECT count(*) FROM nodes`), 100)
  return yield* Effect.forever(Effect.delay(queries, "1 millis")) // the event loop turns
})))
