/** wireguard-go and nebula on the nodes of a lab, with the settings that their manuals start from. */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { output } from "./processes.mjs"

/** Public addresses of the lab's sites and of its relay; see test/natlab/lab/natlab.sh. */
const CLIENT_WAN = "198.51.100.2"
const CONNECTOR_WAN = "198.51.100.34"
export const RELAY_IP = "203.0.113.10"
const WIREGUARD_PORT = 51_820
const NEBULA_PORT = 4242

/** Debian's packages of what must be there, by command. */
export const PACKAGES = {
  "wireguard-go": "wireguard-go",
  wg: "wireguard-tools",
  nebula: "nebula",
  "nebula-cert": "nebula",
  nft: "nftables",
  conntrack: "conntrack",
  ip: "iproute2"
}

/** A tunnel between the two nodes, whose ports the NATs preserve. The names are the machine's: wg finds interfaces by them. */
export async function startWireguard(processes, { lab, on }) {
  const nodes = [
    { host: "client", ip: "10.77.0.1", device: `${lab}c`, peerWan: CONNECTOR_WAN },
    { host: "connector", ip: "10.77.0.2", device: `${lab}n`, peerWan: CLIENT_WAN }
  ]
  for (const node of nodes) {
    node.key = (await output(["wg", ["genkey"]])).trim()
    node.publicKey = (await output(["wg", ["pubkey"]], { input: node.key })).trim()
  }
  const pids = []
  for (const [at, { device, host, ip, key, peerWan }] of nodes.entries()) {
    const env = { ...process.env, WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD: "1" } // some versions refuse without
    const child = processes.start(on(host), "wireguard-go", ["-f", device], { stdio: "ignore", env })
    pids.push(child.pid)
    const config = [
      "[Interface]",
      `PrivateKey = ${key}`,
      `ListenPort = ${WIREGUARD_PORT}`,
      "[Peer]",
      `PublicKey = ${nodes[1 - at].publicKey}`,
      `Endpoint = ${peerWan}:${WIREGUARD_PORT}`,
      "AllowedIPs = 10.77.0.0/24",
      "PersistentKeepalive = 1"
    ].join("\n")
    const file = join(processes.dir, `${device}.conf`)
    writeFileSync(file, config, { mode: 0o600 })
    await retried(() => output(on(host)("wg", ["setconf", device, file])))
    await output(on(host)("ip", ["address", "add", `${ip}/24`, "dev", device]))
    await output(on(host)("ip", ["link", "set", device, "up"]))
  }
  return { pids, host: "10.77.0.2" }
}

/** A lighthouse on the relay's host and a node on each side. `relayed`: the nodes may know no address but the relay's. */
export async function startNebula(processes, { on, relayed }) {
  const dir = join(processes.dir, "nebula")
  mkdirSync(dir)
  const cert = (...args) => output(["nebula-cert", args], { cwd: dir })
  await cert("ca", "-name", "bench")
  const nodes = { relay: "10.78.0.1", connector: "10.78.0.2", client: "10.78.0.3" }
  const pids = []
  for (const [host, ip] of Object.entries(nodes)) {
    await cert("sign", "-name", host, "-ip", `${ip}/24`)
    const node = host !== "relay"
    const any = [{ port: "any", proto: "any", host: "any" }]
    const config = {
      pki: { ca: join(dir, "ca.crt"), cert: join(dir, `${host}.crt`), key: join(dir, `${host}.key`) },
      static_host_map: node ? { [nodes.relay]: [`${RELAY_IP}:${NEBULA_PORT}`] } : {},
      lighthouse: {
        am_lighthouse: !node,
        hosts: node ? [nodes.relay] : [],
        ...(node && relayed ? { remote_allow_list: { "0.0.0.0/0": false, [`${RELAY_IP}/32`]: true } } : {})
      },
      listen: { host: "0.0.0.0", port: NEBULA_PORT },
      punchy: { punch: true, respond: true },
      relay: { am_relay: !node && relayed, use_relays: node && relayed, relays: node && relayed ? [nodes.relay] : [] },
      tun: { dev: "nebula" },
      logging: { level: "error", format: "text" },
      firewall: { outbound: any, inbound: any }
    }
    const file = join(dir, `${host}.yml`)
    writeFileSync(file, JSON.stringify(config))
    pids.push(processes.start(on(host), "nebula", ["-config", file], { stdio: ["ignore", "ignore", "inherit"] }).pid)
  }
  return { pids, host: nodes.connector }
}

/** A device is there a moment after its program has started. */
const retried = async (attempt, tries = 50) => {
  for (let i = 1;; i++) {
    try {
      return await attempt()
    } catch (cause) {
      if (i === tries) throw cause
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}
