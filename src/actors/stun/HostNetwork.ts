/**
 * This host's network as it was last seen: its addresses, the address from which packets to the
 * servers leave, and the source addresses that the open sockets have. It says what a change means.
 */
import type * as InterfaceUse from "../../protocol/candidate/InterfaceUse.ts"
import type * as CandidateGathering from "../../protocol/nat/CandidateGathering.ts"
import * as NetworkWatch from "../../services/network/NetworkWatch.ts"
import type { NetworkChange } from "./StunRpcs.ts"

/** Meaning of a new state of the network. */
export type Step =
  /** Only addresses changed by which no packet leaves this host. */
  | { readonly _tag: "Inner"; readonly hosts: ReadonlyArray<CandidateGathering.Host> }
  /** The first state. */
  | { readonly _tag: "First"; readonly hosts: ReadonlyArray<CandidateGathering.Host> }
  | {
    readonly _tag: "Changed"
    readonly hosts: ReadonlyArray<CandidateGathering.Host>
    /** IP versions whose sockets have a source address that is gone. */
    readonly stale: ReadonlyArray<4 | 6>
    readonly reason: NetworkChange["reason"]
    readonly lost: NetworkChange["lost"]
  }

/** Makes a network of which nothing is known yet. */
export const make = (rules: InterfaceUse.Rules) => {
  let state: NetworkWatch.NetworkState | null = null
  let towards: ReadonlyArray<string> = []
  /** Source addresses of the sockets' packets, per IP version, when the sockets were opened. */
  let bound: NetworkWatch.Outward = { v4: null, v6: null }

  return {
    /** All addresses of this host. */
    get addresses(): ReadonlyArray<string> {
      return state?.addresses.map(({ host }) => host) ?? []
    },
    onState: (now: NetworkWatch.NetworkState): Step => {
      const before = state
      state = now
      const hosts = NetworkWatch.hostsOf(now, rules, towards)
      if (before === null) {
        bound = now.outward
        return { _tag: "First", hosts }
      }
      if (NetworkWatch.isInner(before, now, rules, towards)) return { _tag: "Inner", hosts }
      const stale = NetworkWatch.replaced(bound, now)
      bound = NetworkWatch.firstOf(bound, now.outward, stale)
      return {
        _tag: "Changed",
        hosts,
        stale,
        reason: NetworkWatch.reasonOf(before, now),
        lost: NetworkWatch.lost(before, now)
      }
    },
    /**
     * Takes the local addresses from which packets to the servers leave. Returns the hosts that
     * follow, or `null` if they are the same as before.
     */
    onTowards: (hosts: ReadonlyArray<string>): ReadonlyArray<CandidateGathering.Host> | null => {
      if (state === null || hosts.join() === towards.join()) return null
      towards = hosts
      return NetworkWatch.hostsOf(state, rules, towards)
    },
    /** Notes that the sockets of a new data plane were opened in the present network. */
    onMuxStarted: (): void => {
      bound = state?.outward ?? bound
    }
  } as const
}
