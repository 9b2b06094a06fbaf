/** A connector's answers to invitations of nodes and browsers. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Either } from "effect"
import { DrainState } from "../../src/actors/mux/sessions/DrainState.ts"
import * as InviteAnswers from "../../src/actors/mux/sessions/InviteAnswers.ts"
import { DRAINING } from "../../src/actors/mux/StreamMuxRpcs.ts"
import { SessionTable } from "../../src/session/core/SessionTable.ts"

const MAX = 2
const invite = (session: string) => ({ _tag: "Invite", session }) as never

/** A connector whose state the test changes, and its answers to the relay. */
const setup = () => {
  const state = { begins: 0, isValid: true, refused: null as string | null, spent: null as string | null, ticketOf: "" }
  const answers: Array<string> = []
  const held = new SessionTable<string>(MAX)
  const drain = new DrainState(false)
  const client = {
    Ready: () => Effect.sync(() => void answers.push("ready")),
    Decline: ({ reason }: { readonly reason: string }) => Effect.sync(() => void answers.push(reason))
  }
  const answer = InviteAnswers.make({
    held,
    drain,
    documents: {
      open: ({ session }: { readonly session: string }) =>
        state.isValid ? Either.right({ ticket: { session: state.ticketOf || session } }) : Either.left("forged")
    } as never,
    signaling: { ask: (call: (it: typeof client) => unknown) => call(client) } as never,
    declined: "declined",
    full: "full",
    refuse: () => state.refused,
    begin: (_, { session }) =>
      Effect.sync(() => {
        state.begins++
        if (state.spent === null) held.add(session, session)
        return state.spent
      })
  })
  const ask = (session: string) => Effect.map(answer(invite(session)), () => answers.at(-1))
  return { ask, drain, held, state }
}

describe("a connector's answer to an invitation", () => {
  it.effect("is that it is ready, and the session begins once", () =>
    Effect.gen(function*() {
      const { ask, state } = setup()
      assert.strictEqual(yield* ask("a"), "ready")
      assert.strictEqual(yield* ask("a"), "ready")
      assert.strictEqual(state.begins, 1)
    }))

  it.effect("says why there is no session", () =>
    Effect.gen(function*() {
      const { ask, drain, held, state } = setup()
      state.spent = "spent"
      assert.strictEqual(yield* ask("a"), "spent")
      state.ticketOf = "b"
      assert.strictEqual(yield* ask("a"), "the ticket is for another session")
      state.isValid = false
      assert.strictEqual(yield* ask("a"), "forged")
      held.add("x", "x")
      held.add("y", "y")
      assert.strictEqual(yield* ask("a"), "full")
      state.refused = "refused"
      assert.strictEqual(yield* ask("a"), "refused")
      drain.set(true, [])
      assert.strictEqual(yield* ask("a"), DRAINING)
      assert.strictEqual(state.begins, 1)
    }))
})
