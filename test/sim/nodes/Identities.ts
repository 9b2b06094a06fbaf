/** Two enrolled nodes with their state directories, and what the directory signs for them; real keys, real signatures. */
import { Effect, type Scope } from "effect"
import { generateKeyPairSync } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Role } from "../../../src/protocol/path/PathRef.ts"
import type { NodeKey } from "../../../src/protocol/trust/NodeKey.ts"
import type { Signed } from "../../../src/protocol/trust/Signed.ts"
import * as Authority from "../../../src/services/identity/Authority.ts"
import * as Enrolment from "../../../src/services/identity/Enrolment.ts"
import * as Keys from "../../../src/services/identity/Keys.ts"
import { SESSION } from "./SimPlane.ts"
import { HOST } from "./SimRelay.ts"

interface Identity {
  readonly key: NodeKey
  readonly stateDir: string
  readonly credential: Signed
}

export interface Identities extends Readonly<Record<Role, Identity>> {
  readonly authorityKey: NodeKey
  readonly authority: typeof Authority.Authority.Service
  readonly session: string
  readonly ticket: Signed
  readonly clientTag: string
  readonly connectorTag: string
}

/** To be made in virtual time, by whose clock they are dated. The directories are removed with the scope. */
export const make: Effect.Effect<Identities, unknown, Scope.Scope> = Effect.gen(function*() {
  const root = Keys.fromPrivateKey(generateKeyPairSync("ed25519").privateKey)
  if (root === null) return yield* Effect.dieMessage("no key")
  const authority = Authority.make(root)
  const enrol = Effect.fnUntraced(function*(role: Role) {
    const stateDir = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "sallyport-sim-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    )
    const { publicKey: key } = yield* Keys.loadOrCreate(join(stateDir, Keys.NODE_KEY_FILE))
    const network = role === "client" ? null : "default"
    const membership = yield* authority.membership({ nodeKey: key, name: role, role, network })
    const relay = { host: HOST, httpsPort: 443, tls: { _tag: "Ca" as const }, authorityKey: authority.key }
    yield* Enrolment.make(stateDir).save(key, relay, membership)
    return { key, stateDir, credential: yield* authority.credential(key) }
  })
  const client = yield* enrol("client")
  const connector = yield* enrol("connector")
  const names = { ...(yield* Authority.newSession), session: SESSION }
  const ticket = yield* authority.ticket({ ...names, clientKey: client.key, connectorKey: connector.key })
  return { client, connector, authorityKey: authority.key, authority, ticket, ...names }
})
