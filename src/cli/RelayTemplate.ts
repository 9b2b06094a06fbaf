/** The configuration file that `relay init` writes. It has comments and is valid as it is. */

/** Values of the operator that the written file contains. */
export type Values = {
  readonly host: string
  readonly httpsPort: number
  readonly udpPort: number
  readonly stateDir: string
}

export const render = ({ host, httpsPort, stateDir, udpPort }: Values): string =>
  `# A sallyport relay. Run it with: sallyport run --config relay.yaml
# It reports all mistakes in this file at the start, each with its line. Relative paths start at the
# folder of this file.

role: relay

# This relay's name, as status and traces show it.
name: relay

# Folder for the keys and the directory of nodes. It is created with mode 0700. Back it up, and keep
# the copy secret, because whoever has it can act as this relay. \`sallyport relay init\` and
# \`sallyport run --new-identity\` make new keys. A relay that has lost its state does not start by
# itself, because nodes refuse a relay with other keys.
stateDir: ${stateDir}

# The addresses where this relay listens: TCP for HTTPS (signaling, and packets where UDP is
# blocked), and UDP for STUN and packets. Open both in the firewall. 0.0.0.0 means every IPv4
# address of this machine, and [::] every IPv4 and IPv6 address, including addresses that it gets
# later.
listen:
  https: "0.0.0.0:${httpsPort}"
  udp: "0.0.0.0:${udpPort}"
  # A second UDP port for STUN, which nodes use to find out how their networks treat UDP (sallyport
  # netcheck). Open it in the firewall, too. If omitted, the relay uses the port after udp's, if it
  # is free. With a second public address nodes find out more. The relay finds such an address by
  # itself. It can also be named here.
  # stunAlternate: "0.0.0.0:${udpPort + 1}"

# Public address that nodes connect to. Add the ports only if they differ from those above, as with
# port forwarding:
#   https: 443
#   udp: 3478
advertise:
  host: "${host}"

# The operator's certificate. Without it the relay issues its own certificates, which nodes
# recognise by their token. Nodes that enrolled before it was added stay connected, because the
# relay's own key, which they know, vouches for it. If the certificate is from an authority of your
# own, nodes that enrol later need the key \`ca\`.
# tls:
#   cert: fullchain.pem
#   key: privkey.pem

# Addresses from which a load balancer connects to listen.https, if it passes TLS through. Each
# connection from them must start with a PROXY header (version 1 or 2). The relay believes no other
# statement about a client's address. docs/proxies.md has recipes.
# proxyProtocol: ["10.0.0.5"]

# Addresses from which a reverse proxy connects to listen.https, if it terminates TLS with a public
# certificate for advertise.host. The proxy is trusted like this relay. New tokens tell nodes that
# it is there. Nodes that enrolled earlier still check this relay's own key.
# behindProxy: {from: ["127.0.0.1"]}

# The resources, and the network of connectors that reaches each. An address is a host name, an IP
# address, a CIDR (10.1.0.0/16) or *.example.com. The connector resolves names. If a host name ends
# with a dot (intranet.local.), the connector does not apply its search list to it.
resources: []
# resources:
#   - name: intranet
#     network: default
#     address: intranet.local
#     tcp: [80, 443, "8000-8100"]
#     # UDP ports can be listed, but this version carries only TCP flows.
#     udp: []
#     # Set to true if the resource is at a loopback address of the connector's host (127.0.0.1, or
#     # 127.0.1.1 for its own name on Debian). Link-local, multicast and cloud metadata addresses
#     # can never be reached.
#     allowLoopback: false

# Which clients may reach which resources. Everything else is denied. "*" means all.
access: []
# access:
#   - clients: [laptop]
#     resources: [intranet]
#   - clients: ["*"]
#     resources: [intranet]

# A TURN server (RFC 8656) for WebRTC. It is off unless configured here. Nodes get credentials by
# signaling, so there is no password to set. Open its port in the firewall, and all of \`ports\` for
# UDP. It relays to public addresses and to those in allowPeers. This machine's own addresses must
# each be listed there by themselves.
#
# A browser's first request over UDP is shorter than any answer to it. Over UDP the server answers
# such requests only if answerShort is true. An attacker who forges a source address can then make
# it send that address 2.6 bytes for each byte. Over TCP it always answers.
# turn:
#   udp: "0.0.0.0:${udpPort + 2}"
#   tcp: "0.0.0.0:${udpPort + 2}"
#   publicAddress: 203.0.113.7
#   ports: "49152-65535"
#   allowPeers: [10.1.0.0/16]
#   answerShort: false
#   quotas: {total: 1000, perUser: 16, perAddress: 128, mbitPerUser: 100}

# Whether to serve the page at https://HOST/app, with which a browser acts as a client. It needs tls
# or behindProxy. Set to false to remove it:
# app: false

# Whether to accept links over HTTP/3 (QUIC), too. Open the UDP port with the number of the HTTPS
# port. It helps browsers, and nodes in networks that let only web traffic through, because a lost
# packet does not delay the others. It costs processor time and another process:
# http3: true

# The admin API (sallyport status) listens on a unix socket in stateDir, or on this address:
# admin: "127.0.0.1:9300"
# In a container, scrapers and probes come from other machines. The admin API asks for no password.
# /metrics, /healthz and /readyz answer under any host name. Everything else answers only under an
# IP address, localhost or a name in allowHosts:
# admin: {listen: "0.0.0.0:9300", allowRemote: true, allowHosts: [sallyport]}

# Log level: trace, debug, info, warn or error.
logLevel: info

# Metrics are at /metrics of the admin API. Traces, logs and metrics also go to an OTLP collector
# over HTTP, if there is one. sample is the share of flows that are traced, from 0 to 1:
# telemetry:
#   otlp: http://127.0.0.1:4318
#   sample: 1

# Placement of the actors on threads: default, isolated (one thread for each), or lists of actors by
# thread:
# placement:
#   control: [signalingHub]
#   relay: [relayForwarder]

# Number of threads for a node's data plane. It must be 1 and changes nothing at a relay.
# dataThreads: 1
`
