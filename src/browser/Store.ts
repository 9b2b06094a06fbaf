/**
 * The page's memory in IndexedDB: for each authority, this browser's identity there and the address
 * of the relay.
 */
import type { NodeKey } from "../protocol/trust/NodeKey.ts"
import type { KeyPair } from "./BrowserKey.ts"

/**
 * Identity of this browser at one authority, stored by `authorityKey`. Each has its own key, so
 * that nobody can tell that one browser is enrolled at two relays.
 */
export interface Identity {
  /** Public key of the authority at which this browser is enrolled, base64url. */
  readonly authorityKey: NodeKey
  readonly host: string
  readonly httpsPort: number
  readonly keys: KeyPair
  /** Time of the last use, in epoch ms. */
  readonly usedAt: number
}

const DATABASE = "sallyport"
const VERSION = 1
const IDENTITIES = "identities"

/** Returns the identity that was used last. */
export const last = async (): Promise<Identity | undefined> => {
  const all = await inStore("readonly", (store) => store.getAll() as IDBRequest<Array<Identity>>)
  return all.toSorted((left, right) => right.usedAt - left.usedAt)[0]
}

/** Returns the identity for an authority. `undefined` if there is none. */
export const find = (authorityKey: NodeKey): Promise<Identity | undefined> =>
  inStore("readonly", (store) => store.get(authorityKey) as IDBRequest<Identity | undefined>)

/** Stores an identity, and replaces one for the same authority. */
export const save = async (identity: Identity): Promise<void> => {
  await inStore("readwrite", (store) => store.put(identity))
}

/** Stores a new identity. Rejects if another page has stored one for this authority meanwhile. */
export const create = async (identity: Identity): Promise<void> => {
  await inStore("readwrite", (store) => store.add(identity))
}

const inStore = async <A>(mode: IDBTransactionMode, ask: (store: IDBObjectStore) => IDBRequest<A>): Promise<A> => {
  const opening = indexedDB.open(DATABASE, VERSION)
  opening.addEventListener(
    "upgradeneeded",
    () => opening.result.createObjectStore(IDENTITIES, { keyPath: "authorityKey" })
  )
  const database = await settled(opening)
  try {
    const transaction = database.transaction(IDENTITIES, mode, { durability: "strict" })
    const complete = new Promise<void>((resolve, reject) => {
      transaction.addEventListener("complete", () => resolve())
      transaction.addEventListener("abort", () => reject(transaction.error ?? new Error("IndexedDB gave up")))
    })
    const [answer] = await Promise.all([settled(ask(transaction.objectStore(IDENTITIES))), complete])
    return answer
  } finally {
    database.close()
  }
}

const settled = <A>(request: IDBRequest<A>): Promise<A> =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result))
    request.addEventListener("error", () => reject(request.error ?? new Error("IndexedDB failed")))
  })
