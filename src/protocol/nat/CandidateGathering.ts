/**
 * A host's knowledge of its own addresses, and the candidates that follow from it (RFC 8445,
 * section 5.1.1).
 */
import { familyOf, type SocketAddr } from "../bytes/SocketAddr.ts"
import * as Candidate from "../candidate/Candidate.ts"
import * as CandidateChoice from "../candidate/CandidateChoice.ts"
import type { Use } from "../candidate/InterfaceUse.ts"
import type { Success } from "./Stun.ts"

/** Ports of the bound sockets, by IP version. Absent if there is no socket. */
export type Ports = { readonly v4?: number | undefined; readonly v6?: number | undefined }
/**
 * Whether UDP gets through. `unknown`: no server has answered or failed yet, or none can be asked.
 * `blocked`: no server has answered, and all have failed.
 */
export type UdpReach = "unknown" | "works" | "blocked"
/** This node's outside addresses, as the configuration names them. */
export type Static = {
  /**
   * Addresses to offer. Port 0 stands for the port of the bound socket, for a NAT that translates
   * addresses only.
   */
  readonly advertise: ReadonlyArray<{ readonly host: string; readonly port: number }>
  /** Local port to which the outside addresses are forwarded. 0 if none. */
  readonly port: number
}
/** An address of this host. */
export type Host = { readonly host: string; readonly interface: string; readonly use: Use }
/** Candidates of this host, and facts about its network. */
export type Local = CandidateChoice.Choice & {
  /** Whether UDP gets through. */
  readonly udp: UdpReach
  /** How this host's NAT maps ports. Absent if not known. */
  readonly mapping?: Candidate.Mapping | undefined
}

const keyOf = (server: SocketAddr): string => `${server.host}|${server.port}`

/** Collects what is known of this host's addresses, and computes its candidates. */
export class CandidateGathering {
  #hosts: ReadonlyArray<Host> = []
  #ports: Ports | null = null
  #servers: ReadonlyArray<SocketAddr> = []
  #allowLoopback = false
  readonly #mapped = new Map<string, SocketAddr>()
  /** Addresses at which a server's other ports and addresses saw the same socket, by server. */
  readonly #elsewhere = new Map<string, ReadonlyArray<SocketAddr>>()
  readonly #silent = new Set<string>()
  #portMapped: SocketAddr | null = null
  readonly #static: Static

  constructor(options: Static = { advertise: [], port: 0 }) {
    this.#static = options
  }

  /**
   * Takes the addresses of this host. Forgets reflexive addresses, because they were seen while
   * packets left by other addresses.
   */
  onHosts(hosts: ReadonlyArray<Host>): void {
    this.#hosts = hosts
    this.#forget()
  }

  /**
   * Takes the addresses of this host after a change of addresses that do not lead to the internet.
   * The addresses that servers have seen stay valid.
   */
  onInnerHosts(hosts: ReadonlyArray<Host>): void {
    this.#hosts = hosts
  }

  /**
   * Takes the ports of the bound sockets. Returns whether they changed. If so, earlier mappings are
   * forgotten, because they belong to sockets that are gone.
   */
  onPorts(ports: Ports): boolean {
    if (this.#ports !== null && ports.v4 === this.#ports.v4 && ports.v6 === this.#ports.v6) return false
    this.#ports = ports
    this.#forget()
    return true
  }

  /** Takes the STUN servers to ask. Servers that are not literal addresses are ignored. */
  onServers(servers: ReadonlyArray<SocketAddr>, relayHost: string | null): void {
    this.#allowLoopback = relayHost !== null && Candidate.allowsLoopback(relayHost)
    this.#servers = servers.flatMap(({ host, port }) => {
      const clean = Candidate.canonical(host)
      return clean === null ? [] : [{ host: clean, port }]
    })
    this.#forget()
  }

  /** Takes the address at which a server saw this host. */
  onMapped(server: SocketAddr, mapped: SocketAddr): void {
    const key = keyOf(server)
    const before = this.#mapped.get(key)
    // A NAT that has forgotten the socket gives it other ports everywhere.
    if (before !== undefined && !isSameAddress(before, mapped)) this.#elsewhere.delete(key)
    this.#silent.delete(key)
    this.#mapped.set(key, mapped)
  }

  /**
   * Returns other addresses of the server that gave this answer. Asking them shows whether the
   * mapping varies.
   */
  elsewhere(server: SocketAddr, { alternatePort, mapped, other }: Success): ReadonlyArray<SocketAddr> {
    const untranslated = this.#has(mapped.host)
    if (familyOf(server.host) !== 4 || untranslated || this.#elsewhere.has(keyOf(server))) return []
    const port = other?.port ?? alternatePort
    const places = port === null || port === server.port ? [] : [{ host: server.host, port }]
    const usable = other !== null && other.host !== server.host && familyOf(other.host) === 4 &&
      Candidate.isUsableHost(other.host, this.#allowLoopback)
    return usable ? [...places, other] : places
  }

  /** Takes the answer from one of the addresses that `elsewhere` named. */
  onMappedElsewhere(server: SocketAddr, mapped: SocketAddr): void {
    const key = keyOf(server)
    if (this.#mapped.has(key)) this.#elsewhere.set(key, [...this.#elsewhere.get(key) ?? [], mapped])
  }

  /** Notes that a server did not answer. */
  onSilent(server: SocketAddr): void {
    this.#mapped.delete(keyOf(server))
    this.#silent.add(keyOf(server))
  }

  /**
   * Takes the gateway's port mapping, or `null` if there is none. A change of addresses does not
   * remove it: it is valid until the gateway or the network withdraws it.
   */
  onPortMapped(external: SocketAddr | null): void {
    this.#portMapped = external
  }

  /**
   * Whether the sockets are known. Before that, offer nothing: an empty list would make the peer
   * forget addresses that are still good.
   */
  get isReady(): boolean {
    return this.#ports !== null
  }

  /** Servers for which there is a socket. */
  get askable(): ReadonlyArray<SocketAddr> {
    return this.#servers.filter(({ host }) => this.#portOf(host) !== undefined)
  }

  hasPortFor(host: string): boolean {
    return this.#portOf(host) !== undefined
  }

  /** Returns the candidates that follow from what is known now. */
  local(): Local {
    const list: Array<Candidate.Candidate> = []
    for (const [index, { host, interface: name, use }] of this.#hosts.entries()) {
      const port = this.#portOf(host)
      const origin = { use, interface: name }
      if (port !== undefined) list.push(Candidate.make("host", { host, port }, { index, origin }))
    }
    if (this.#portMapped !== null && this.#ports?.v4 !== undefined) {
      list.push(Candidate.make("port-mapped", this.#portMapped))
    }
    for (const [index, mapped] of [...this.#mapped.values()].entries()) {
      list.push(Candidate.make("srflx", mapped, { index }))
    }
    const [forwarded, stray] = this.#advertised()
    list.push(...forwarded)
    const choice = CandidateChoice.choose(list, { allowLoopback: this.#allowLoopback })
    const leftOut = [...stray, ...choice.leftOut].slice(0, CandidateChoice.MAX_LEFT_OUT)
    const mapping = this.#mapping()
    return { candidates: choice.candidates, leftOut, udp: this.#reach(), ...(mapping === null ? {} : { mapping }) }
  }

  #mapping(): Candidate.Mapping | null {
    let found: Candidate.Mapping | null = null
    for (const [key, mapped] of this.#mapped) {
      const others = this.#elsewhere.get(key) ?? []
      if (others.some((other) => !isSameAddress(other, mapped))) return "varies"
      if (others.length > 0 || this.#has(mapped.host)) found = "steady"
    }
    return found
  }

  #reach(): UdpReach {
    if (this.#mapped.size > 0) return "works"
    const { askable } = this
    return askable.length > 0 && askable.every((server) => this.#silent.has(keyOf(server))) ? "blocked" : "unknown"
  }

  /**
   * Returns the configured addresses that lead here, and those that lead to a port that this node
   * does not have.
   */
  #advertised(): readonly [ReadonlyArray<Candidate.Candidate>, ReadonlyArray<Candidate.Candidate>] {
    const forwarded: Array<Candidate.Candidate> = []
    const stray: Array<Candidate.Candidate> = []
    for (const [index, { host, port }] of this.#static.advertise.entries()) {
      const bound = this.#portOf(host)
      if (bound === undefined) continue
      const address = { host, port: port === 0 ? bound : port }
      const candidate = Candidate.make("port-mapped", address, { index, origin: { use: "static" } })
      const leadsHere = port === 0 || bound === this.#static.port
      ;(leadsHere ? forwarded : stray).push(candidate)
    }
    return [forwarded, stray]
  }

  #has(address: string): boolean {
    return this.#hosts.some(({ host }) => host === address)
  }

  #portOf(host: string): number | undefined {
    return familyOf(host) === 4 ? this.#ports?.v4 : this.#ports?.v6
  }

  #forget(): void {
    this.#mapped.clear()
    this.#elsewhere.clear()
    this.#silent.clear()
  }
}

const isSameAddress = (a: SocketAddr, b: SocketAddr): boolean => a.host === b.host && a.port === b.port

export const isSame = (a: Local, b: Local): boolean =>
  a.udp === b.udp && a.mapping === b.mapping && Candidate.sameList(a.candidates, b.candidates) &&
  Candidate.sameList(a.leftOut, b.leftOut)
