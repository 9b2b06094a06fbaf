/**
 * Short-lived TURN credentials. The user name is `EXPIRY:NODE` (epoch seconds, and the node's
 * name), and the password is an HMAC of it under a secret that only this relay has. The relay
 * therefore stores nothing about the credentials that it issues.
 */
import { Effect, Option, Redacted, Schema } from "effect"
import { Buffer } from "node:buffer"
import { join } from "node:path"
import { LIFETIMES } from "../../protocol/trust/Lifetimes.ts"
import * as Crypto from "../host/Crypto.ts"
import * as StateFile from "../host/StateFile.ts"
import * as DirectoryClock from "./DirectoryClock.ts"

/** Name of the secret's file in a relay's state directory. */
export const TURN_SECRET_FILE = "turn.key"
const SECRET_BYTES = 32
/**
 * How long credentials can create allocations, in seconds. For {@link KEEP_SECONDS}, they can keep
 * an allocation.
 */
export const LIFETIME_SECONDS = LIFETIMES.turn
/**
 * How long after issue credentials can refresh an allocation, in seconds. An ICE agent cannot
 * switch to new credentials without an ICE restart.
 */
export const KEEP_SECONDS = 12 * 3600

/** Error when the secret cannot be read or written. `message` says what to do. */
export class TurnSecretError extends Schema.TaggedError<TurnSecretError>()("TurnSecretError", {
  message: Schema.String
}) {}

/** Secret of 32 bytes from which this relay derives the passwords for TURN. */
export type Secret = Redacted.Redacted<Uint8Array>

/** The credentials with which a node uses TURN. */
export interface Credentials {
  readonly username: string
  readonly password: Redacted.Redacted
  /** When the credentials expire, in epoch seconds. */
  readonly expiresAt: number
}

/** The parts of a user name. */
export interface User {
  readonly name: string
  readonly expiresAt: number
}

const text = new TextEncoder()

/**
 * Reads the secret, or creates it with mode 0600 if there is none. Deleting the file invalidates
 * all credentials at the next start.
 */
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

/** Issues credentials for a node, valid for {@link LIFETIME_SECONDS}. */
export const issue = (secret: Secret, name: string): Effect.Effect<Credentials> =>
  Effect.map(DirectoryClock.nowSeconds, (now) => {
    const expiresAt = now + LIFETIME_SECONDS
    const username = `${expiresAt}:${name}`
    return { username, password: Redacted.make(passwordOf(secret, username)), expiresAt }
  })

/**
 * Computes the password for a user name. Only this relay, and the node to which it gave the
 * password, know it.
 */
export const passwordOf = (secret: Secret, username: string): string =>
  Buffer.from(Crypto.hmacSha256(Redacted.value(secret), text.encode(username))).toString("base64url")

/**
 * Splits a user name into its parts. `null` for a name that this relay never issues. It checks
 * neither the password nor the expiry.
 */
export const parse = (username: string): User | null => {
  const parts = /^(\d{10}):([a-z0-9][a-z0-9-]{0,62})$/.exec(username)
  return parts === null ? null : { expiresAt: Number(parts[1]), name: parts[2]! }
}
