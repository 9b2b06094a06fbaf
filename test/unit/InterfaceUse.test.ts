import { describe, expect, it } from "vitest"
import * as InterfaceUse from "../../src/protocol/candidate/InterfaceUse.ts"

const CARD = { loopback: false, hasMac: true, isTun: false, isInnerBridge: false }
const use = (name: string, traits: Partial<InterfaceUse.Traits> = {}, leadsOut = false, rules?: InterfaceUse.Rules) =>
  InterfaceUse.of({ ...CARD, name, ...traits }, leadsOut, rules)

describe("the use of an interface", () => {
  it.each([
    "eth0",
    "eth1",
    "enp3s0",
    "wlan0",
    "wlp2s0",
    "en0",
    "bond0",
    "br0",
    "vmbr1",
    "eth0.100",
    "Ethernet 2",
    "bridge0"
  ])(
    "%s leads to other hosts",
    (name) => expect(use(name)).toBe("lan")
  )

  it.each([
    "docker0",
    "docker_gwbridge",
    "br-0a1b2c3d4e5f",
    "virbr0",
    "podman1",
    "cni0",
    "cni-podman0",
    "nerdctl0",
    "lxcbr0",
    "lxdbr0",
    "incusbr0",
    "vmnet8",
    "vboxnet0",
    "bridge100",
    "kube-ipvs0",
    "kube-bridge",
    "nodelocaldns",
    "flannel.1",
    "cali1234abcd",
    "cilium_host",
    "vxlan.calico",
    "weave",
    "hassio",
    "veth12ab34",
    "dummy0",
    "vEthernet (WSL)",
    "VMware Network Adapter VMnet8"
  ])("%s is for containers and virtual machines", (name) => expect(use(name)).toBe("virtual"))

  it.each(["tailscale0", "ztabcdef12", "wg0", "wg-office", "utun4", "tun0", "tap0", "ppp0", "nebula1", "nordlynx"])(
    "%s is another VPN",
    (name) => expect(use(name)).toBe("tunnel")
  )

  it.each(
    [
      ["a bridge without a network card", { isInnerBridge: true }, "virtual"],
      ["no hardware address", { hasMac: false }, "tunnel"],
      ["a TAP device", { isTun: true }, "tunnel"],
      ["loopback", { loopback: true, hasMac: false }, "loopback"]
    ] as const
  )("is known by the kernel's facts, whatever the name: %s", (_, traits, expected) => {
    expect(use("office", traits)).toBe(expected)
  })

  it.each(["eth0", "br0", "docker0", "wg0", "tap0", "ppp0"])(
    "%s is the default route where packets leave by it",
    (name) => {
      expect(use(name, { isInnerBridge: name === "br0", isTun: name === "tap0" }, true)).toBe("outward")
    }
  )

  it("follows the configuration, which excludes before it prefers", () => {
    const rules = { prefer: ["wg*", "docker0"], exclude: ["wg1", "eth*"] }
    expect(use("wg0", { hasMac: false }, false, rules)).toBe("preferred")
    expect(use("docker0", {}, false, rules)).toBe("preferred")
    expect(use("docker0", {}, true, rules)).toBe("outward")
    expect(use("wg1", { hasMac: false }, false, rules)).toBe("excluded")
    expect(use("eth0", {}, true, rules)).toBe("excluded")
    expect(use("enp1s0", {}, false, rules)).toBe("lan")
    expect(use("lo", { loopback: true }, false, { prefer: ["*"], exclude: [] })).toBe("loopback")
  })

  it.each(
    [
      ["br-*", "br-1234", true],
      ["br-*", "br0", false],
      ["*0", "eth0", true],
      ["e*h*0", "eth10", true],
      ["ab*ba", "aba", false],
      ["*", "anything", true],
      ["eth0", "eth01", false],
      ["", "eth0", false],
      ["(a+)+", "aaaa", false]
    ] as const
  )("the pattern %s stands for %s: %s", (pattern, name, expected) => {
    expect(InterfaceUse.matches([pattern], name)).toBe(expected)
  })
})
