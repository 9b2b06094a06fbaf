/**
 * How this host uses a network interface. That decides whether the addresses of the interface are
 * offered to peers, and in which order. A host with containers has dozens of interfaces, and nearly
 * all of their addresses exist again on other hosts.
 */
import { Schema } from "effect"

/**
 * How an address of this host is used, best first as `CandidateChoice` orders them:
 * - `outward`: packets to the internet leave with this address.
 * - `preferred`: the interface is named by `udp.interfaces.prefer`.
 * - `lan`: any other interface that leads to other hosts.
 * - `loopback`: only programs on this host reach it.
 * - `virtual`: a switch or a dummy device for this host's own containers and virtual machines.
 * - `tunnel`: another VPN. It is never offered, because a path inside a VPN works only as well as
 *   the one around it.
 * - `excluded`: the interface is named by `udp.interfaces.exclude`. It is never offered.
 */
export const Use = Schema.Literal("outward", "preferred", "lan", "loopback", "virtual", "tunnel", "excluded")
export type Use = typeof Use.Type

/** Properties of one interface, as the system tells them. */
export type Traits = {
  readonly name: string
  readonly loopback: boolean
  /** Whether it has a hardware address. WireGuard, TUN devices, PPP and some modems have none. */
  readonly hasMac: boolean
  /** Whether the kernel calls it a TUN or TAP device. */
  readonly isTun: boolean
  /**
   * Whether it is a bridge without any physical port, so that it leads to containers and virtual
   * machines only.
   */
  readonly isInnerBridge: boolean
}

/** Names and patterns of interfaces, as configured; `*` stands for any characters. */
export type Rules = { readonly prefer: ReadonlyArray<string>; readonly exclude: ReadonlyArray<string> }
/** Rules that name no interface. */
export const NO_RULES: Rules = { prefer: [], exclude: [] }

/**
 * Names of interfaces that container runtimes, hypervisors and Kubernetes make for themselves.
 * Docker names the bridge of a network after the first 12 hex digits of its id.
 */
const VIRTUAL =
  /^(docker\d|docker_gwbridge|br-[0-9a-f]{12}$|podman\d|cni\d|cni-podman|nerdctl\d|hassio$|lxcbr\d|lxdbr\d|incusbr\d|virbr\d|vnet\d|vmnet\d|vboxnet\d|bridge1\d\d$|cbr\d|kube-|nodelocaldns|flannel|cali|tunl\d|cilium|lxc[0-9a-f]|weave|vxlan|ovs-|veth|dummy\d|vEthernet |VMware |VirtualBox )/i
/**
 * Names of VPN interfaces that have a hardware address, or that a system without `/sys` shows like
 * any other interface.
 */
const TUNNEL =
  /^(tailscale|zt[0-9a-z]{8}|wg\d|wg-|utun\d|tun\d|tap\d|ppp\d|ipsec\d|nebula|nordlynx|proton|cscotun|gpd\d|feth\d)/i

/**
 * Returns how an interface is used. `leadsOut`: whether packets to the internet leave with the
 * address in question.
 */
export const of = (traits: Traits, leadsOut: boolean, rules: Rules = NO_RULES): Use => {
  if (matches(rules.exclude, traits.name)) return "excluded"
  if (traits.loopback) return "loopback"
  if (leadsOut) return "outward"
  if (matches(rules.prefer, traits.name)) return "preferred"
  if (!traits.hasMac || traits.isTun || TUNNEL.test(traits.name)) return "tunnel"
  return traits.isInnerBridge || VIRTUAL.test(traits.name) ? "virtual" : "lan"
}

/** Whether one of the patterns matches the whole name. */
export const matches = (patterns: ReadonlyArray<string>, name: string): boolean =>
  patterns.some((pattern) => {
    const [first = "", ...others] = pattern.split("*")
    if (others.length === 0) return pattern === name
    const last = others.pop() ?? ""
    if (!name.startsWith(first) || !name.endsWith(last)) return false
    let at = first.length
    for (const part of others) {
      const found = name.indexOf(part, at)
      if (found < 0) return false
      at = found + part.length
    }
    return at + last.length <= name.length
  })
