/**
 * Order in which a dial invites the connectors of a network. Of two that are picked at random, the
 * one with fewer sessions comes first ("power of two choices"), so that connectors are loaded
 * evenly, and a restarted one gets sessions again. Connectors that declined or did not answer
 * recently come last.
 */
import type { NodeKey } from "../../protocol/trust/NodeKey.ts"
import type { Link } from "./Board.ts"

/**
 * How long a connector that did not answer an invitation is invited last. An answer, or a new link,
 * ends this time.
 */
const LATE_MS = 30_000
/**
 * How long a connector that declined is invited last. It is short, because a connector does not
 * tell the relay when it takes sessions again.
 */
const DECLINED_MS = 10_000

/** Connectors that are invited last for some time. */
class Last {
  readonly #until = new WeakMap<Link, number>()

  add(link: Link, until: number): void {
    this.#until.set(link, until)
  }

  delete(link: Link): void {
    this.#until.delete(link)
  }

  has(link: Link, now: number): boolean {
    return (this.#until.get(link) ?? -Infinity) > now
  }
}

/** Remembers the answers of connectors. Times are in ms (monotonic). */
export class ConnectorOrder {
  readonly #silent = new Last()
  /** A connector may decline browsers and accept nodes. */
  readonly #declined = { browsers: new Last(), nodes: new Last() }
  readonly #load: (connector: NodeKey) => number

  /** `load` returns the number of a connector's sessions. */
  constructor(load: (connector: NodeKey) => number) {
    this.#load = load
  }

  /** Notes that the connector did not answer. */
  onSilent(link: Link, now: number): void {
    this.#silent.add(link, now + LATE_MS)
  }

  /** Notes that the connector answers, even if too late. */
  onHeard(link: Link): void {
    this.#silent.delete(link)
  }

  /** Notes that the connector answered the invitation of a browser or of another node. */
  onAnswer(link: Link, isBrowser: boolean, isAccepted: boolean, now: number): void {
    const declined = this.#declinedBy(isBrowser)
    if (isAccepted) declined.delete(link)
    else declined.add(link, now + DECLINED_MS)
  }

  /** Sorts connectors that are in random order. */
  sort(links: ReadonlyArray<Link>, isBrowser: boolean, now: number): ReadonlyArray<Link> {
    const silent = links.filter((link) => this.#silent.has(link, now))
    const declined = this.#declinedBy(isBrowser)
    const heard = links.filter((link) => !this.#silent.has(link, now))
    const [first, second, ...others] = heard.filter((link) => !declined.has(link, now))
    const last = [...heard.filter((link) => declined.has(link, now)), ...silent]
    if (first === undefined) return last
    if (second === undefined) return [first, ...last]
    const isSecondFreer = this.#load(second.member.key) < this.#load(first.member.key)
    return [...(isSecondFreer ? [second, first] : [first, second]), ...others, ...last]
  }

  #declinedBy(isBrowser: boolean): Last {
    return isBrowser ? this.#declined.browsers : this.#declined.nodes
  }
}
