/**
 * Short-lived TURN credentials: user name `EXPIRY:NODE` (epoch seconds, and the node's name), password an HMAC of it under a
 * secret that only this relay has. So nothing is kept for those that were issued.
 */
import { Effect, Option, Redacted, Schema } from "effect"
import { Buffer } from "node:buffer"
import { join } from "node:path"
import { LIFETIMES } from "../protocol/Lifetimes.ts"
import * as Crypto from "./Crypto.ts"
import * as DirectoryClock from "./DirectoryClock.ts"
import * as StateFile from "./StateFile.ts"

export const TURN_SECRET_FILE = "turn.key"
const SECRET_BYTES = 32
/** Allocations can be made for so long; one that was made may be kept by the same credentials for `KEEP_SECONDS`. */
export const LIFETIME_SECONDS = LIFETIMES.turn
/** From issue on. An ICE agent cannot take other credentials without starting anew. */
export const KEEP_SECONDS = 12 * 3600

export class TurnSecretError extends Schema.TaggedError<TurnSecretError>()("TurnSecretError", {
  message: Schema.String
}) {}

export type Secret = Redacted.Redacted<Uint8Array>

export interface Credentials {
  readonly username: string
  readonly password: Redacted.Redacted
  /** Epoch seconds. */
  readonly expiresAt: number
}

export interface User {
  readonly name: string
  readonly expiresAt: number
}

const text = new TextEncoder()

/** Made where there is none, with mode 0600. Deleting the file ends all credentials at the next start. */
export const loadOrCreate = Effect.fn("TurnCredentials.loadOrCreate")(function*(stateDir: string) {
  const path = join(stateDir, TURN_SECRET_FILE)
  const failed = (message: string) => new TurnSecretError({ message })
  const stored = Effect.mapError(StateFile.read(path), ({ message }) => failed(message))
  let found = yield* stored
  if (Option.isNone(found)) {
    const fresh = `${Buffer.from(Crypto.randomBytes(SECRET_BYTES)).toString("base64url")}\n`
    yield* Effect.mapError(StateFile.create(path, fresh), ({ message }) => failed(message))
    found = yield* stored // another process may have been first
  }
  if (Option.isNone(found)) return yield* failed(`${path} was taken away; start again`)
  const { exposed, mode, text } = found.value
  if (exposed) return yield* failed(`other users can read ${path} (mode ${mode}); run: chmod 600 ${path}`)
  const secret = Uint8Array.from(Buffer.from(text.trim(), "base64url"))
  if (secret.length !== SECRET_BYTES) {
    return yield* failed(`${path} holds no secret; delete it, and a new one is made at the next start`)
  }
  return Redacted.make(secret)
})

export const issue = (secret: Secret, name: string): Effect.Effect<Credentials> =>
  Effect.map(DirectoryClock.nowSeconds, (now) => {
    const expiresAt = now + LIFETIME_SECONDS
    const username = `${expiresAt}:${name}`
    return { username, password: Redacted.make(passwordOf(secret, username)), expiresAt }
  })

/** What only we and whom it was issued to can know. */
export const passwordOf = (secret: Secret, username: string): string =>
  Buffer.from(Crypto.hmacSha256(Redacted.value(secret), text.encode(username))).toString("base64url")

/** Null for a name that we never issue. Says nothing about the password, nor whether it has expired. */
export const parse = (username: string): User | null => {
  const parts = /^(\d{10}):([a-z0-9][a-z0-9-]{0,62})$/.exec(username)
  return parts === null ? null : { expiresAt: Number(parts[1]), name: parts[2]! }
}
