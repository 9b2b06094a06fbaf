/** How long a grant counts while its node reaches no directory, whatever the clocks do. */
import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Documents from "../../src/protocol/trust/Documents.ts"
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import * as Outage from "../../src/protocol/trust/Outage.ts"
import { Permission } from "../../src/session/Permission.ts"

const START = 1_700_000_000
const CLIENT = "client" as NodeKey
const CONNECTOR = "connector" as NodeKey
const PARTIES = { clientKey: CLIENT, connectorKey: CONNECTOR }
const TARGET = { kind: "tcp", host: "wiki", port: 443 } as const
const WIKI = {
  name: "wiki",
  network: "office",
  address: "wiki.internal",
  tcp: [{ from: 443, to: 443 }],
  udp: [],
  allowLoopback: false
}

const grantAt = (issuedAt: number): Documents.Grant => ({
  id: `at ${issuedAt}`,
  ...PARTIES,
  clientName: "laptop",
  connectorName: "office",
  resources: [WIKI],
  issuedAt,
  expiresAt: issuedAt + NORMAL.grant
})
const permitOf = ({ id, issuedAt }: Documents.Grant): Documents.Outage => ({
  grant: id,
  expiresAt: issuedAt + NORMAL.outage
})

/** A node's clocks and its link. `hostMs` only advances; the directory's time may jump either way. */
const world = (offlineSeconds: number) => {
  const state = { hostMs: 5_000, jumpedSeconds: 0, reach: { reached: true, sinceMs: -1e9 } as Outage.Reach }
  const clocks = {
    hostMs: () => state.hostMs,
    nowSeconds: () => Math.floor(START + state.jumpedSeconds + state.hostMs / 1000),
    reach: () => state.reach,
    maxOutageSeconds: () => offlineSeconds
  }
  return { state, clocks }
}

type Step =
  | { readonly _tag: "pass"; readonly seconds: number }
  | { readonly _tag: "jump"; readonly seconds: number }
  | { readonly _tag: "lose" | "return" | "renew" }
const steps = fc.array(
  fc.oneof(
    fc.record({ _tag: fc.constant("pass" as const), seconds: fc.integer({ min: 1, max: 4_000 }) }),
    fc.record({ _tag: fc.constant("jump" as const), seconds: fc.integer({ min: -90_000, max: 90_000 }) }),
    fc.constantFrom<Step>({ _tag: "lose" }, { _tag: "return" }, { _tag: "renew" })
  ),
  { minLength: 5, maxLength: 60 }
)

describe("a permission without the directory", () => {
  it("counts exactly as long as its permit and offlineAccess say", () =>
    fc.assert(
      fc.property(
        fc.constantFrom(0, 3_600, 86_400, NORMAL.outage),
        fc.boolean(),
        steps,
        (offline, hasPermit, steps) => {
          const { clocks, state } = world(offline)
          let grant = grantAt(clocks.nowSeconds())
          /** Host time at which the grant arrived. */
          let since = state.hostMs
          const permission = new Permission(grant, PARTIES, clocks, hasPermit ? permitOf(grant) : null)
          for (const step of steps) {
            if (step._tag === "pass") state.hostMs += step.seconds * 1000
            else if (step._tag === "jump") state.jumpedSeconds += step.seconds
            else if (step._tag === "renew") {
              const next = grantAt(clocks.nowSeconds())
              const taken = permission.replace(next, hasPermit ? permitOf(next) : null)
              if (taken === "taken") {
                grant = next
                since = state.hostMs
              }
            } else if (state.reach.reached !== (step._tag === "return")) {
              state.reach = { reached: step._tag === "return", sinceMs: state.hostMs }
            }
            const age = (state.hostMs - since) / 1000
            const outer = hasPermit ? Math.max(NORMAL.grant, Math.min(NORMAL.outage, offline)) : NORMAL.grant
            const isOpen = !state.reach.reached || state.hostMs - state.reach.sinceMs < Outage.RETURN_MS
            const limit = isOpen && outer > NORMAL.grant ? outer : NORMAL.grant + Documents.LEEWAY_SECONDS
            // Documents have whole seconds.
            if (Math.abs(age - limit) <= 1) continue
            expect(permission.standing() === null).toBe(age < limit)
            expect(typeof permission.permit(TARGET) === "string").toBe(age > limit)
            expect(permission.permit({ ...TARGET, port: 80 })).toBe(age < limit ? "port_not_listed" : "grant_expired")
          }
        }
      )
    ))

  it("takes no permit of another grant", () => {
    const { clocks, state } = world(86_400)
    const [old, grant] = [grantAt(START), grantAt(START + 1)]
    const permission = new Permission(grant, PARTIES, clocks, permitOf(old))
    expect(permission.prolong(permitOf(old))).toBe(false)
    state.reach = { reached: false, sinceMs: state.hostMs }
    state.hostMs += 2 * NORMAL.grant * 1000
    expect(permission.standing()).toBe("grant_expired")
    expect(permission.prolong(permitOf(grant))).toBe(true)
    expect(permission.standing()).toBeNull()
    expect(permission.replace({ ...grant, id: "older", issuedAt: START }, null)).toBe("foreign")
  })

  it("is never longer than what the authority signs", () => {
    const grant = grantAt(START)
    const now = START + NORMAL.outage
    const long = { grant: grant.id, expiresAt: START + NORMAL.outage + 60 }
    expect(Documents.timing(long, Documents.MAX_OUTAGE_SECONDS, START)).toBe("too_long_lived")
    expect(Outage.endOf(grant, permitOf(grant), Infinity)).toBe(now)
    expect(Outage.endOf(grant, permitOf(grant), 0)).toBe(grant.expiresAt)
    expect(Outage.endOf(grant, null, Infinity)).toBe(grant.expiresAt)
  })
})
