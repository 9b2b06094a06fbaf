/**
 * The addresses of the relays that have joined, as each of them reports. These are functions on an
 * open database, as in `DirectoryNodes`.
 */
import type { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { MAX_RELAYS, type RelayPoint } from "../../protocol/relay/RelayPoint.ts"
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import * as DirectoryAudit from "./DirectoryAudit.ts"

/**
 * Lists the joined relays in the order of their names, so that the order is the same for every
 * node. Removed relays are not in it.
 */
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

/**
 * Stores a relay's addresses. Returns whether they changed. A change is also written to the audit
 * log, where a running relay notices it.
 */
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
