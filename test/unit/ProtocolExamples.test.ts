/**
 * `docs/protocol/examples.md` shows one message of each kind, byte by byte, as the codecs make it. After a change of a wire,
 * `npx vitest run --project unit test/unit/ProtocolExamples.test.ts -u` writes the page again.
 */
import { Either, Redacted } from "effect"
import { assert, describe, expect, it } from "vitest"
import * as Frame from "../../src/protocol/bytes/Frame.ts"
import * as LengthPrefix from "../../src/protocol/bytes/LengthPrefix.ts"
import * as IceSignal from "../../src/protocol/candidate/IceSignal.ts"
import * as ChannelWire from "../../src/protocol/flow/ChannelWire.ts"
import * as FlowWire from "../../src/protocol/flow/FlowWire.ts"
import * as SessionWire from "../../src/protocol/flow/SessionWire.ts"
import * as Http3 from "../../src/protocol/http3/Http3.ts"
import * as PathMessage from "../../src/protocol/path/PathMessage.ts"
import * as LinkHandshake from "../../src/protocol/relay/LinkHandshake.ts"
import * as RelayWire from "../../src/protocol/relay/RelayWire.ts"
import * as Documents from "../../src/protocol/trust/Documents.ts"
import * as EnrolmentToken from "../../src/protocol/trust/EnrolmentToken.ts"
import * as NodeKey from "../../src/protocol/trust/NodeKey.ts"
import * as SignalSeal from "../../src/protocol/trust/SignalSeal.ts"
import * as Signed from "../../src/protocol/trust/Signed.ts"
import { ProbeSeal } from "../../src/transport/probe/ProbeSeal.ts"
import * as EndNotice from "../../src/transport/quic/EndNotice.ts"

/** `length` bytes with the value `value`, to be seen in the page. */
const bytes = (length: number, value: number) => new Uint8Array(length).fill(value)
const nonce = bytes(8, 0xa1)
const mark = bytes(8, 0xa2)
const signature = bytes(64, 0x51)
const clientKey = NodeKey.fromBytes(bytes(32, 0xc1))
const connectorKey = NodeKey.fromBytes(bytes(32, 0xc2))
const authorityKey = NodeKey.fromBytes(bytes(32, 0xc3))
const session = "0123456789abcdef0123456789abcdef"
const tag = Frame.tagFromHex("112233445566")
const v4 = { host: "192.0.2.1", port: 0xabcd }
const v6 = { host: "2001:db8::1", port: 0xabcd }
const utf8 = (text: string) => new TextEncoder().encode(text)

const frame = (write: (frame: Uint8Array) => void, length: number) => {
  const whole = bytes(length, 0x7e)
  write(whole)
  return whole
}
const control = (message: SessionWire.SessionMessage) => SessionWire.encode(message)!
const path = PathMessage.encode
const link = (message: LinkHandshake.Message) => LengthPrefix.encode(LinkHandshake.encode(message))
const txId = bytes(8, 0xa3)

type Example = readonly [title: string, about: string, made: Uint8Array]

const signedDocuments = ((): ReadonlyArray<Example> => {
  const resource = {
    name: "wiki",
    network: "office",
    address: "wiki.internal",
    tcp: [{ from: 443, to: 443 }],
    udp: [],
    allowLoopback: false
  }
  const grant = Documents.encode("grant", {
    id: "g1",
    clientKey,
    clientName: "laptop",
    connectorKey,
    connectorName: "office-1",
    resources: [resource],
    issuedAt: 1_700_000_000,
    expiresAt: 1_700_000_300
  })
  const ticket = Documents.encode("ticket", {
    session,
    clientKey,
    connectorKey,
    clientTag: "112233445566",
    connectorTag: "665544332211",
    expiresAt: 1_700_003_600
  })
  const credential = Documents.encode("credential", { nodeKey: clientKey, expiresAt: 1_700_000_600 })
  const membership = Documents.encode("membership", {
    nodeKey: connectorKey,
    name: "office-1",
    role: "connector",
    network: "office",
    issuedAt: 1_700_000_000
  })
  return [
    ["Membership", "the payload", membership],
    ["Grant", "the payload", grant],
    ["Ticket", "the payload", ticket],
    ["Credential", "the payload", credential],
    [
      "What the authority signs for this credential",
      "kind, then payload",
      Signed.signedBytes("credential", credential)
    ],
    ["The signed credential", "signature, then payload", Signed.toBytes({ payload: credential, signature })]
  ]
})()

const token = EnrolmentToken.encode({
  host: "relay.example.com",
  httpsPort: 443,
  tls: { _tag: "Ca" },
  authorityKey,
  id: "0011223344556677",
  secret: Redacted.make("EBESExQVFhcYGRobHB0eHw")
})

const chapters: ReadonlyArray<readonly [page: string, examples: ReadonlyArray<Example>]> = [
  ["relay-link.md", [
    ["Hello", "version 1, purpose `signal`", link({ _tag: "Hello", version: 1, purpose: "signal" })],
    ["Challenge", "no endorsement", link({ _tag: "Challenge", nonce: bytes(32, 0xa1), endorsements: [] })],
    ["Auth", "a node that is enrolled", link({ _tag: "Auth", nodeKey: NodeKey.toBytes(clientKey), signature })],
    [
      "Auth with a token",
      "token id `id`, secret `s`, name `n`",
      link({
        _tag: "Auth",
        nodeKey: NodeKey.toBytes(clientKey),
        signature,
        enrol: { tokenId: "id", secret: "s", name: "n" }
      })
    ],
    ["Welcome", "a body of three bytes", link({ _tag: "Welcome", body: Uint8Array.of(1, 2, 3) })],
    ["Refused", "code `version`, message `no`", link({ _tag: "Refused", code: "version", message: "no" })]
  ]],
  ["relay-udp.md", [
    ["Relayed frame", "a packet of four bytes", frame((it) => Frame.writeRelayedHead(it, 0, 12, tag), 12)],
    ["Direct frame", "a packet of four bytes", frame((it) => Frame.writeDirectHead(it, 0, 6), 6)],
    ["BindRequest", "", RelayWire.encode({ _tag: "BindRequest", nonce })],
    ["Cookie", "", RelayWire.encode({ _tag: "Cookie", nonce, cookie: bytes(20, 0xb1) })],
    [
      "Bind",
      "a credential of three bytes",
      RelayWire.encode({
        _tag: "Bind",
        nonce,
        cookie: bytes(20, 0xb1),
        signature: bytes(64, 0x52),
        credential: { payload: Uint8Array.of(1, 2, 3), signature }
      })
    ],
    [
      "Bound",
      "300 s, seen at 192.0.2.1:43981",
      RelayWire.encode({
        _tag: "Bound",
        nonce,
        mark,
        lifetimeSeconds: 300,
        mapped: v4
      })
    ],
    [
      "Open",
      "a ticket of three bytes",
      RelayWire.encode({
        _tag: "Open",
        nonce,
        ticket: { payload: Uint8Array.of(1, 2, 3), signature }
      })
    ],
    ["Opened", "the peer has a leg over TCP", RelayWire.encode({ _tag: "Opened", nonce, tag, peerLeg: "relay-tcp" })],
    ["Rebind", "", RelayWire.encode({ _tag: "Rebind", echo: nonce })],
    ["RateLimited", "try again in 250 ms", RelayWire.encode({ _tag: "RateLimited", mark, retryAfterMs: 250 })],
    ["Refused", "Open, `expired`", RelayWire.encode({ _tag: "Refused", nonce, asked: "Open", code: "expired" })],
    ["Ping", "", RelayWire.encode({ _tag: "Ping", echo: nonce })],
    ["Pong", "", RelayWire.encode({ _tag: "Pong", echo: nonce })],
    ["Leg", "the peer is not bound", RelayWire.encode({ _tag: "Leg", mark, tag, peerLeg: null })],
    ["Close", "", RelayWire.encode({ _tag: "Close", tag })]
  ]],
  ["session.md", [
    ["End notice", "stream 8 ended after 1,000 bytes", EndNotice.encode({ kind: "end", stream: 8, bytes: 1000 })],
    ["Reset notice", "stream 8", EndNotice.encode({ kind: "reset", stream: 8, bytes: 0 })],
    [
      "Open",
      "tcp, `wiki`, port 443",
      FlowWire.encodeOpen({
        kind: "tcp",
        resource: "",
        host: "wiki",
        port: 443,
        traceparent: null
      })!
    ],
    [
      "Open of the control stream",
      "",
      FlowWire.encodeOpen({
        kind: "control",
        resource: "",
        host: "",
        port: 0,
        traceparent: null
      })!
    ],
    ["Verdict", "`refused`, reason `no`", FlowWire.encodeVerdict({ code: "refused", reason: "no" })],
    ["ProbeSecret", "", control({ _tag: "ProbeSecret", secret: bytes(32, 0xd1) })],
    ["Grant", "a signed grant of three bytes", control({ _tag: "Grant", signed: Uint8Array.of(1, 2, 3) })],
    ["GrantAck", "id `g1`", control({ _tag: "GrantAck", id: "g1" })],
    ["GrantRefused", "reason `no`", control({ _tag: "GrantRefused", reason: "no" })],
    ["Leg", "`relay-h3`", control({ _tag: "Leg", kind: "relay-h3" })],
    ["Goaway", "reason `stop`", control({ _tag: "Goaway", reason: "stop" })],
    ["Ice", "end of attempt 1", control({ _tag: "Ice", signal: IceSignal.encode({ kind: "end", attempt: 1 }) })]
  ]],
  ["path.md", [
    ["Ping", "path 5, flag `active`", path({ _tag: "Ping", txId, pathId: 5, flags: 1, padTo: 32 })],
    ["Pong", "path 5, seen at 192.0.2.1:43981", path({ _tag: "Pong", txId, pathId: 5, observed: v4 })],
    [
      "Candidates",
      "one host candidate, NAT `steady`",
      path({
        _tag: "Candidates",
        seq: 7,
        list: [{ kind: "host", address: v6, priority: 0x7e000000 }],
        mapping: "steady"
      })
    ],
    ["CandidatesAck", "", path({ _tag: "CandidatesAck", seq: 7 })],
    ["Switch", "`path_failed`", path({ _tag: "Switch", reason: "path_failed" })],
    ["Opened", "attempt 2, ports go up by 1", path({ _tag: "Opened", opened: { attempt: 2, delta: 1, seen: [v4] } })],
    [
      "Sealed path message",
      "`CandidatesAck` above, the first from the client",
      new ProbeSeal({
        secret: bytes(32, 0xd1),
        role: "client"
      }).seal(path({ _tag: "CandidatesAck", seq: 7 }))
    ]
  ]],
  ["browser.md", [
    ["Hello", "", SignalSeal.encodeHello({ ephemeral: bytes(32, 0xe1), signature })],
    ["Data", "three bytes", ChannelWire.data(Uint8Array.of(1, 2, 3))],
    ["End", "", ChannelWire.end],
    ["Reset", "", ChannelWire.reset],
    ["Stop", "", ChannelWire.stop],
    ["Window", "65,536 more bytes", ChannelWire.window(65_536)]
  ]],
  ["documents.md", [
    ["Enrolment token", "as text", utf8(token)],
    ...signedDocuments
  ]],
  ["http3.md", [
    ["SETTINGS", "QPACK without a table, extended CONNECT", Http3.encodeSettings({ 1: 0, 8: 1 })],
    ["DATA with a close capsule", "code 1000, reason `bye`", Http3.frame(0, Http3.encodeClose(1000, "bye"))]
  ]]
]

const isText = (made: Uint8Array) => made.length > 0 && made.every((byte) => byte >= 0x20 && byte < 0x7f)
const hex = (made: Uint8Array) =>
  Buffer.from(made).toString("hex").replaceAll(/(..)/g, "$1 ").replaceAll(/(.{48})/g, "$1\n").replaceAll(/ +$/gm, "")
    .trimEnd()

const rendered = async (): Promise<string> => {
  const seal = await SignalSeal.SignalSeal.make({
    session,
    clientKey,
    connectorKey,
    side: "client",
    secret: bytes(32, 0xd2),
    clientEphemeral: bytes(32, 0xe1),
    connectorEphemeral: bytes(32, 0xe2)
  })
  const sealed = await seal.seal(IceSignal.encode({ kind: "end", attempt: 1 }))
  const lines = [
    "<!-- dprint-ignore-file -->",
    "",
    "# Messages byte by byte",
    "",
    "One message of each kind, as the codecs make it. `test/unit/ProtocolExamples.test.ts` makes this page and fails",
    "if a wire no longer has these bytes. Nonces, keys, marks and signatures are one byte repeated."
  ]
  for (const [page, examples] of chapters) {
    lines.push("", `## [${page}](${page})`)
    const all = page === "browser.md"
      ? [...examples, ["Sealed signal", "end of attempt 1, the first from the client", sealed] as const]
      : examples
    for (const [title, about, made] of all) {
      const size = `${made.length} ${made.length === 1 ? "byte" : "bytes"}`
      lines.push("", `### ${title}`, "", `${about === "" ? "" : `${about}; `}${size}`, "", "```")
      lines.push(isText(made) ? new TextDecoder().decode(made) : hex(made), "```")
    }
  }
  return `${lines.join("\n")}\n`
}

describe("the wires", () => {
  it("have the bytes that the documents show", async () => {
    await expect(await rendered()).toMatchFileSnapshot("../../docs/protocol/examples.md")
  })

  it("have a page for each, linked from the index", async () => {
    const { readFile } = await import("node:fs/promises")
    const folder = new URL("../../docs/protocol/", import.meta.url)
    const index = await readFile(new URL("README.md", folder), "utf8")
    for (const [page, examples] of chapters) {
      assert.include(index, `(${page})`)
      const text = await readFile(new URL(page, folder), "utf8")
      const messages = examples.map(([title]) => title.split(" ")[0]!)
      for (const message of messages) assert.include(text, message, `${page} says nothing of ${message}`)
    }
  })

  it("decode what they encode", () => {
    const credential = signedDocuments.find(([title]) => title === "The signed credential")![2]
    const signed = Either.getOrThrow(Signed.fromBytes(credential))
    const opened = Documents.open("credential", signed, () => true, 1_700_000_000)
    assert.deepStrictEqual(Either.getOrThrow(opened), { nodeKey: clientKey, expiresAt: 1_700_000_600 })
    assert.strictEqual(Either.getOrThrow(EnrolmentToken.parse(token)).host, "relay.example.com")
  })
})
