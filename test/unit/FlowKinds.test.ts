import { assert, describe, it } from "vitest"
import { decodeOpen, encodeOpen, FLOW_KINDS, StreamKind } from "../../src/protocol/flow/FlowWire.ts"
import type { Grant, Resource } from "../../src/protocol/trust/Documents.ts"
import type { NodeKey } from "../../src/protocol/trust/NodeKey.ts"
import { Permission } from "../../src/session/Permission.ts"

const PARTIES = { clientKey: "client" as NodeKey, connectorKey: "connector" as NodeKey }
const NOTHING: Resource = {
  name: "wiki",
  network: "office",
  address: "10.0.0.5",
  tcp: [],
  udp: [],
  allowLoopback: false
}

const permissionFor = (ports: Partial<Pick<Resource, "tcp" | "udp">>) => {
  const grant: Grant = {
    ...PARTIES,
    id: "1",
    clientName: "alice",
    connectorName: "office",
    resources: [{ ...NOTHING, ...ports }],
    issuedAt: 1000,
    expiresAt: 1100
  }
  return new Permission(grant, PARTIES, { nowSeconds: () => 1050, hostMs: () => 0 })
}

describe("a flow kind", () => {
  it("keeps its number on the wire", () => {
    assert.deepStrictEqual({ tcp: StreamKind.tcp, control: StreamKind.control }, { tcp: 1, control: 2 })
    const numbers = Object.values<number>(StreamKind)
    assert.lengthOf(new Set(numbers), numbers.length)
  })

  it.each(FLOW_KINDS)("travels in the Open of a flow: %s", (kind) => {
    const open = { kind, resource: "", host: "wiki", port: 443, traceparent: null }
    const bytes = encodeOpen(open)
    assert.isNotNull(bytes)
    assert.deepStrictEqual([bytes[0], bytes[1]], [1, StreamKind[kind]])
    assert.deepStrictEqual(decodeOpen(bytes), { _tag: "Done", value: open, used: bytes.length })
  })

  it.each(FLOW_KINDS)("is permitted by its own list of ports: %s", (kind) => {
    const ports = [{ from: 443, to: 443 }]
    const target = { kind, host: "wiki", port: 443 }
    assert.deepInclude(permissionFor({ [kind]: ports }).permit(target), { dialHost: "10.0.0.5" })
    const others = { tcp: ports, udp: ports }
    others[kind] = []
    assert.strictEqual(permissionFor(others).permit(target), "port_not_listed")
  })
})
