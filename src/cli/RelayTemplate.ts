/** The configuration file that `relay init` writes. It has comments and is valid as it is. */

export type Values = {
  readonly host: string
  readonly httpsPort: number
  readonly udpPort: number
  readonly stateDir: string
}

export const render = ({ host, httpsPort, stateDir, udpPort }: Values): string =>
  `# A sallyport relay. Check it with: sallyport run --config relay.yaml
# All mistakes are reported at the start, each with its line. Relative paths start at the folder of
# this file.

role: relay
name: relay

# Folder for the keys and the directory of nodes. It is created with mode 0700. Back it up: whoever
# has a copy can act as this relay. \`sallyport relay init\` makes it, or \`sallyport run
# --new-identity\`. Otherwise a relay without its state does not start, because nodes refuse a relay
# with other keys.
stateDir: ${stateDir}

# The addresses where this relay listens: TCP for HTTPS (signaling, and packets where UDP is
# blocked), and UDP for STUN and packets. Open both in the firewall. 0.0.0.0 means every IPv4
# address of this machine, and [::] every IPv4 and IPv6 address, including addresses that it gets
# later.
listen:
  https: "0.0.0.0:${httpsPort}"
  udp: "0.0.0.0:${udpPort}"
  # A second UDP port for STUN, which nodes use to find out how their networks treat UDP (sallyport
  # netcheck). Open it, too. If omitted, the port after udp's is used, if it is free. With a second
  # public address nodes find out more. The relay uses such an address by itself; it can also be
  # named here.
  # stunAlternate: "0.0.0.0:${udpPort + 1}"

# Public address that nodes connect to. Add ports only if they differ from those above (port
# forwarding):
#   https: 443
#   udp: 3478
advertise:
  host: "${host}"

# The operator's certificate. Without it the relay issues its own certificates, which nodes
# recognise by their token. Nodes that enrolled before it is added stay connected: the relay's own
# key, which they know, vouches for the new certificate. If the certificate is from an authority of
# your own, later nodes need the key \`ca\`.
# tls:
#   cert: fullchain.pem
#   key: privkey.pem

# A load balancer in front of listen.https that passes TLS through: the addresses that it connects
# from. Each connection must start with a PROXY header (version 1 or 2). No other statement about a
# client's address is trusted. Recipes: docs/proxies.md
# proxyProtocol: ["10.0.0.5"]

# A reverse proxy in front of listen.https that terminates TLS with a public certificate for
# advertise.host: the addresses that it connects from. It is trusted like this relay. New tokens
# tell nodes so; nodes that enrolled earlier still check this relay's own key.
# behindProxy: {from: ["127.0.0.1"]}

# The resources, and the network of connectors that reaches each. The connector resolves the
# address: a host name, an IP address, a CIDR (10.1.0.0/16) or *.example.com. If a host name ends
# with a dot (intranet.local.), the connector does not apply its search list to it.
resources: []
# resources:
#   - name: intranet
#     network: default
#     address: intranet.local
#     tcp: [80, 443, "8000-8100"]
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

# TURN (RFC 8656) for WebRTC, off unless configured here. Nodes get credentials by signaling, so
# there is no password to set. Open the port in the firewall, and \`ports\` for UDP. TURN relays to
# public addresses, to the private ones in allowPeers, and to this machine's own addresses only if
# each is listed there by itself.
#
# A browser's first request over UDP is shorter than any answer. It is answered only with
# answerShort, which sends forged source addresses up to 2.6 bytes for each byte. Over TCP it is
# always answered.
# turn:
#   udp: "0.0.0.0:${udpPort + 2}"
#   tcp: "0.0.0.0:${udpPort + 2}"
#   publicAddress: 203.0.113.7
#   ports: "49152-65535"
#   allowPeers: [10.1.0.0/16]
#   answerShort: false
#   quotas: {total: 1000, perUser: 16, perAddress: 128, mbitPerUser: 100}

# The page for people at https://HOST/app, with which a browser acts as a client. It needs tls or
# behindProxy. Set to false to remove it:
# app: false

# Whether to accept links over HTTP/3 (QUIC) too, at the UDP port with the number of the HTTPS port,
# which must be open. It helps browsers, and nodes in networks that let only web traffic through,
# because a lost packet does not delay the others. It costs processor time and a process:
# http3: true

# The admin API (sallyport status) listens on a unix socket in stateDir, or on this address:
# admin: "127.0.0.1:9300"
# In a container, scrapers and probes come from other machines. The admin API asks for no password.
# /metrics, /healthz and /readyz answer under any host name; everything else answers only under an
# IP address, localhost or a name in allowHosts:
# admin: {listen: "0.0.0.0:9300", allowRemote: true, allowHosts: [sallyport]}

# Log level: trace, debug, info, warn or error.
logLevel: info

# Metrics are at /metrics of the admin API. Traces and logs go to an OTLP collector over HTTP.
# sample is the share of flows that are traced:
# telemetry:
#   otlp: http://127.0.0.1:4318
#   sample: 1

# Placement of the actors on threads: default, isolated (a thread each), or threads by name:
# placement:
#   control: [signalingHub]
#   relay: [relayForwarder]
`
