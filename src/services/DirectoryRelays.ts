/** Where the relays that have joined are reached, as each of them says. Functions on an open database, as in `DirectoryNodes`. */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import type { NodeKey } from "../protocol/NodeKey.ts"
import { MAX_RELAYS, type RelayPoint } from "../protocol/RelayPoint.ts"
import * as DirectoryAudit from "./DirectoryAudit.ts"

/** In the order of their names, which is the same for every node. Those that were removed are gone. */
export const list = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<Row>`SELECT nodes.name, relays.addresses, relays.port FROM relays JOIN nodes ON nodes.key = relays.key
      WHERE nodes.removed_at IS NULL AND nodes.role = 'relay' ORDER BY nodes.name LIMIT ${MAX_RELAYS}`,
    (rows) =>
      rows.map(({ addresses, name, port }): RelayPoint => ({
        name,
        addresses: JSON.parse(addresses) as RelayPoint["addresses"],
        port
      }))
  )

/** Whether this is news; then it is in the audit log, too, by which a running relay learns of it. */
export const place = Effect.fnUntraced(
  function*(sql: SqlClient.SqlClient, key: NodeKey, { addresses, name, port }: RelayPoint) {
    const text = JSON.stringify(addresses)
    const [before] = yield* sql<Row>`SELECT addresses, port FROM relays WHERE key = ${key}`
    if (before?.addresses === text && before.port === port) return false
    yield* sql`INSERT INTO relays (key, addresses, port) VALUES (${key}, ${text}, ${port})
      ON CONFLICT (key) DO UPDATE SET addresses = excluded.addresses, port = excluded.port`
    yield* DirectoryAudit.append(sql, {
      kind: "relay_placed",
      nodeName: name,
      nodeKey: key,
      detail: { addresses: addresses.join(" "), port }
    })
    return true
  }
)

interface Row {
  readonly name: string
  readonly addresses: string
  readonly port: number
}
