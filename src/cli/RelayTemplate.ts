/** The configuration file that `relay init` writes. It has comments and is valid as it is. */

export type Values = {
  readonly host: string
  readonly httpsPort: number
  readonly udpPort: number
  readonly stateDir: string
}

export const render = ({ host, httpsPort, stateDir, udpPort }: Values): string =>
  `# A sallyport relay. Check it with: sallyport run --config relay.yaml
# Every mistake is reported at the start, with its line. Paths count from the folder of this file.

role: relay
name: relay

# Keys and the directory of nodes. Back it up: whoever has it is this relay. Mode 0700. sallyport relay init makes it, or
# sallyport run --new-identity: a relay without its state does not start otherwise, because nodes refuse one with other keys.
stateDir: ${stateDir}

# Where this relay listens: TCP for HTTPS (signaling, and packets where UDP is blocked) and
# UDP for STUN and packets. Open both in the firewall. 0.0.0.0 means every IPv4 address of this machine, and [::] every
# address of both kinds, also those that it gets later.
listen:
  https: "0.0.0.0:${httpsPort}"
  udp: "0.0.0.0:${udpPort}"
  # A second UDP port for STUN, by which nodes find out how their networks treat UDP (sallyport netcheck). Open it, too.
  # Left out, it is the port after udp's, if that is free. With a second public address on this machine nodes find
  # out more: it is used as it is, or named here.
  # stunAlternate: "0.0.0.0:${udpPort + 1}"

# What nodes connect to. Ports only if they differ from those above (port forwarding):
#   https: 443
#   udp: 3478
advertise:
  host: "${host}"

# Without this the relay issues its own certificates, which nodes know from their token. Nodes that
# enrolled before it is added stay: the relay's own key, which they know, vouches for the new
# certificate. If the certificate is from an authority of your own, later nodes need the key ca.
# tls:
#   cert: fullchain.pem
#   key: privkey.pem

# A balancer before listen.https that passes TLS through: the addresses from which it connects, each connection with a PROXY
# header (version 1 or 2). Nothing else is believed of where a connection comes from. Recipes: docs/proxies.md
# proxyProtocol: ["10.0.0.5"]

# A reverse proxy before listen.https that ends TLS with a public certificate for advertise.host: the addresses from which it
# connects. It is trusted as this relay is. New tokens say so; nodes that enrolled before go on checking this relay's own key.
# behindProxy: {from: ["127.0.0.1"]}

# What can be reached, and through which network of connectors. Names and addresses are
# resolved at the connector: a host name, an IP address, a CIDR (10.1.0.0/16) or *.example.com. With a dot at its end
# (intranet.local.) a host name is not completed by the connector's search list.
resources: []
# resources:
#   - name: intranet
#     network: default
#     address: intranet.local
#     tcp: [80, 443, "8000-8100"]
#     # Set it to true if the resource is at a loopback address of the connector's host (127.0.0.1, or 127.0.1.1 for its own
#     # name on Debian). Link-local, multicast and cloud metadata addresses are never reached.
#     allowLoopback: false

# Who may reach what; nobody may reach anything that is not listed. "*" means all.
access: []
# access:
#   - clients: [laptop]
#     resources: [intranet]
#   - clients: ["*"]
#     resources: [intranet]

# TURN (RFC 8656) for WebRTC, off unless it is here. Nodes get credentials by signaling, so there is no password to set. Open
# the port, and \`ports\` for UDP. It relays to public addresses; of private ones only to those listed, and to this machine's
# own addresses only where each is listed by itself. Browsers' first request over UDP is shorter than any answer: it is
# answered only with answerShort, which sends forged addresses up to 2.6 bytes for one; over TCP it always is.
# turn:
#   udp: "0.0.0.0:${udpPort + 2}"
#   tcp: "0.0.0.0:${udpPort + 2}"
#   publicAddress: 203.0.113.7
#   ports: "49152-65535"
#   allowPeers: [10.1.0.0/16]
#   answerShort: false
#   quotas: {total: 1000, perUser: 16, perAddress: 128, mbitPerUser: 100}

# With tls there is a page for people at https://HOST/app, by which a browser is a client. This takes it away:
# app: false

# Links also over HTTP/3 (QUIC), at the UDP port of HTTPS's number, which is to be open, too: for networks that let nothing but web
# traffic through, where a lost packet then holds up no others, and for browsers. Costs processor time, and a process:
# http3: true

# The admin API (sallyport status) is a unix socket in stateDir, or an address of this machine:
# admin: "127.0.0.1:9300"
# In a container, where scrapers and probes come from other machines. It asks for no password. /metrics, /healthz and /readyz answer
# by whatever name they are asked for; everything else by an IP address, localhost or the names in allowHosts:
# admin: {listen: "0.0.0.0:9300", allowRemote: true, allowHosts: [sallyport]}

# trace, debug, info, warn or error
logLevel: info

# Metrics are at /metrics of the admin API. Traces and logs by OTLP over HTTP; sample: the share of flows that are traced:
# telemetry:
#   otlp: http://127.0.0.1:4318
#   sample: 1

# Which threads the actors run on: default, isolated (a thread each), or threads by name:
# placement:
#   control: [signalingHub]
#   relay: [relayForwarder]
`
