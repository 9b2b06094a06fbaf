/**
 * Two WebRTC peers of node-datachannel that may use nothing but a TURN server, in a process of their own (the library ends its
 * process in its own way). One has IPv4, the other IPv6, so that no direct way exists on one host either. Sends so many
 * messages from one to the other and back, and writes what it saw as one line of JSON.
 */
import datachannel from "node-datachannel"

const [port = "", username = "", password = "", count = "0", rightHost = "::1"] = process.argv.slice(2)
const make = (name, hostname) =>
  new datachannel.PeerConnection(name, {
    iceServers: [{ hostname, port: Number(port), username, password, relayType: "TurnUdp" }],
    iceTransportPolicy: "relay",
    bindAddress: hostname
  })
const left = make("left", "127.0.0.1")
const right = make("right", rightHost)
const candidates = []

const join = (from, to) => {
  from.onLocalDescription((sdp, type) => to.setRemoteDescription(sdp, type))
  from.onLocalCandidate((candidate, mid) => {
    candidates.push(candidate)
    to.addRemoteCandidate(candidate, mid)
  })
}
join(left, right)
join(right, left)

right.onDataChannel((channel) => channel.onMessage((message) => channel.sendMessage(String(message))))
const channel = left.createDataChannel("test")
let received = 0
channel.onOpen(() => {
  for (let i = 0; i < Number(count); i++) channel.sendMessage(String(i).padStart(1000, "0"))
})
channel.onMessage((message) => {
  if (Number(message) !== received++) throw new Error("out of order")
  if (received !== Number(count)) return
  const pairs = [left, right].map((peer) => peer.getSelectedCandidatePair()).map((pair) =>
    `${pair?.local.type} ${pair?.remote.type}`
  )
  process.stdout.write(`${JSON.stringify({ received, pairs, candidates })}\n`)
  left.close()
  right.close()
  datachannel.cleanup()
  process.exit(0)
})
