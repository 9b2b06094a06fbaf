import { describe, expect, it } from "vitest"
import {
  connectionIdOf,
  KEY_LIFE_MS,
  MAX_CLIENTS,
  MAX_SAVED,
  MAX_SESSIONS,
  SavedSessions,
  TicketKeys
} from "../../src/transport/quic/engine/Resumption.ts"

const saved = (n: number) => Uint8Array.of(n)
const keyOf = (keys: TicketKeys, client: string, session: string, now: number) => {
  const claim = keys.claim(client, session, now)
  return claim._tag === "New" ? claim.ticketKey : "spent"
}

describe("SavedSessions", () => {
  it("gives the last session with a connector, once", () => {
    const sessions = new SavedSessions()
    sessions.keep("a", saved(1), 0)
    sessions.keep("a", saved(2), 0)
    expect(sessions.take("b", 0)).toBeNull()
    expect(sessions.take("a", 0)).toEqual(saved(2))
    expect(sessions.take("a", 0)).toBeNull()
  })

  it("gives none that is as old as a key", () => {
    const sessions = new SavedSessions()
    sessions.keep("a", saved(1), 5)
    expect(sessions.take("a", 5 + KEY_LIFE_MS)).toBeNull()
  })

  it("forgets the one kept longest when full", () => {
    const sessions = new SavedSessions()
    for (let n = 0; n <= MAX_SAVED; n++) sessions.keep(`${n}`, saved(n), 0)
    expect(sessions.take("0", 0)).toBeNull()
    expect(sessions.take("1", 0)).not.toBeNull()
  })
})

describe("TicketKeys", () => {
  it("keeps a key for each client, and shares none", () => {
    const keys = new TicketKeys()
    const first = keyOf(keys, "a", "1", 0)
    expect(first).toBeInstanceOf(Uint8Array)
    expect(keyOf(keys, "a", "2", 1)).toEqual(first)
    expect(keyOf(keys, "b", "3", 1)).not.toEqual(first)
    expect(keyOf(new TicketKeys(), "a", "1", 0)).not.toEqual(first)
  })

  it("changes the key with time, and begins sessions once", () => {
    const keys = new TicketKeys()
    const first = keyOf(keys, "a", "1", 0)
    keyOf(keys, "a", "2", KEY_LIFE_MS - 1)
    expect(keyOf(keys, "a", "1", KEY_LIFE_MS - 1)).toBe("spent")
    const second = keyOf(keys, "a", "3", KEY_LIFE_MS)
    expect(second).toBeInstanceOf(Uint8Array)
    expect(second).not.toEqual(first)
    expect(keyOf(keys, "a", "2", KEY_LIFE_MS)).toBe("spent")
  })

  it("drops the key when it cannot remember another session", () => {
    const keys = new TicketKeys()
    const first = keyOf(keys, "a", "0", 0)
    for (let n = 1; n < MAX_SESSIONS; n++) expect(keyOf(keys, "a", `${n}`, 0)).toEqual(first)
    expect(keyOf(keys, "a", "more", 0)).toBeNull()
    expect(keyOf(keys, "a", "0", KEY_LIFE_MS - 1)).toBe("spent")
    expect(keyOf(keys, "a", "and more", KEY_LIFE_MS - 1)).toBeNull()
    expect(keyOf(keys, "a", "later", KEY_LIFE_MS)).not.toEqual(first)
  })

  it("has no key for one client too many", () => {
    const keys = new TicketKeys()
    for (let n = 0; n < MAX_CLIENTS; n++) keyOf(keys, `${n}`, `session ${n}`, 0)
    expect(keyOf(keys, "more", "1", 2 * KEY_LIFE_MS - 1)).toBeNull()
    expect(keyOf(keys, "0", "session 0", KEY_LIFE_MS - 1)).toBe("spent")
    expect(keyOf(keys, "more", "2", 2 * KEY_LIFE_MS)).toBeInstanceOf(Uint8Array)
  })
})

describe("connectionIdOf", () => {
  it("is one for each session", () => {
    expect(connectionIdOf("a")).toHaveLength(16)
    expect(connectionIdOf("a")).toEqual(connectionIdOf("a"))
    expect(connectionIdOf("a")).not.toEqual(connectionIdOf("b"))
  })
})
