import net from "node:net"
import { describe, expect, it } from "vitest"
import type { VerdictCode } from "../../src/protocol/flow/FlowWire.ts"
import { dial, isAllowed, type Lookup, type Result, type Target } from "../../src/transport/flow/Dialer.ts"

type Asked = Omit<Target, "client">
const once = (target: Asked) => new Promise<Result>((resolve) => dial({ client: "c", ...target }, resolve))
const outcome = async (target: Asked) => {
  const result = await once(target)
  if (result._tag === "Connected") result.reader.socket.destroy()
  return result._tag === "Connected" ? result.address : result.code
}
const listening = async () => {
  const server = net.createServer((socket) => socket.on("error", () => {}))
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return { server, port: (server.address() as net.AddressInfo).port }
}
const found = (...addresses: ReadonlyArray<string>): Lookup => (_host, _client, { onFound }) => {
  onFound(addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })), true)
  return () => {}
}
const failing = (code: VerdictCode): Lookup => (_host, _client, { onFailed }) => {
  onFailed({ code, reason: "because" })
  return () => {}
}

describe("Dialer", () => {
  it.each([
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "169.254.169.254",
    "100.100.100.200",
    "224.0.0.1",
    "::1",
    "::",
    "0:0:0:0:0:0:0:1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::",
    "not an address"
  ])("does not dial %s", (address) => {
    expect(isAllowed(address, false)).toBe(false)
  })

  it.each(["127.0.0.1", "127.0.1.1", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1"])(
    "dials %s where the resource allows loopback",
    (address) => {
      expect(isAllowed(address, true)).toBe(true)
    }
  )

  it.each([
    "0.0.0.0",
    "169.254.169.254",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::",
    "not an address"
  ])("does not dial %s even where the resource allows loopback", (address) => {
    expect(isAllowed(address, true)).toBe(false)
  })

  it("says where a denied name leads, and what permits it", async () => {
    const lookup = found("127.0.1.1")
    const own = await once({ host: "office-srv", port: 80, allowLoopback: false, lookup })
    expect(own).toMatchObject({
      code: "denied",
      reason: expect.stringMatching(/office-srv is 127\.0\.1\.1.*allowLoopback: true/)
    })
    const metadata = await once({ host: "169.254.169.254", port: 80, allowLoopback: true })
    expect(metadata).toMatchObject({ code: "denied", reason: expect.stringMatching(/metadata/) })
  })

  it.each([
    "10.0.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "8.8.8.8",
    "2001:db8::1",
    "fd12::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1"
  ])(
    "dials %s",
    (address) => {
      expect(isAllowed(address, false)).toBe(true)
    }
  )

  it("refuses a name of the connector itself unless allowed", async () => {
    const { port, server } = await listening()
    const lookup = found("127.0.0.1")
    expect(await outcome({ host: "rebind.test", port, allowLoopback: false, lookup })).toBe("denied")
    expect(await outcome({ host: "127.0.0.1", port, allowLoopback: false })).toBe("denied")
    expect(await outcome({ host: "rebind.test", port, allowLoopback: true, lookup })).toBe("127.0.0.1")
    server.close()
  })

  it("resolves once and dials only what it checked", async () => {
    const { port, server } = await listening()
    let asked = 0
    const lookup: Lookup = (...question) => {
      asked += 1
      return found("127.0.0.1")(...question)
    }
    expect(await outcome({ host: "twice.test", port, allowLoopback: true, lookup })).toBe("127.0.0.1")
    expect(asked).toBe(1)
    server.close()
  })

  it("goes on to the next address when one fails", async () => {
    const { port, server } = await listening()
    const lookup = found("127.0.0.2", "127.0.0.1")
    expect(await outcome({ host: "two.test", port, allowLoopback: true, lookup })).toBe("127.0.0.1")
    server.close()
  })

  it("passes on what the lookup says", async () => {
    const target = { host: "x.test", port: 80, allowLoopback: false, lookup: failing("name_not_found") }
    expect(await once(target)).toEqual({ _tag: "Failed", code: "name_not_found", reason: "because" })
  })

  it("reports one address's refusal rather than a missing route", async () => {
    const { port, server } = await listening()
    await new Promise((resolve) => server.close(resolve))
    // Nobody has an address of the range for documentation.
    const lookup = found("2001:db8::1", "127.0.0.1")
    expect(await outcome({ host: "x.test", port, allowLoopback: true, lookup })).toBe("refused")
  })

  it("tries later addresses when the first ones fail", async () => {
    const { port, server } = await listening()
    let left = 0
    let more = () => {}
    const lookup: Lookup = (_host, _client, { onFound }) => {
      onFound([{ address: "127.0.0.2", family: 4 }], false)
      more = () => onFound([{ address: "127.0.0.1", family: 4 }], true)
      return () => {
        left += 1
      }
    }
    const connected = outcome({ host: "late.test", port, allowLoopback: true, lookup })
    setTimeout(() => more(), 20)
    expect(await connected).toBe("127.0.0.1")
    expect(left).toBe(1)
    server.close()
  })

  it("leaves the lookup when the dial is given up", () => {
    let left = 0
    const lookup: Lookup = () => () => {
      left += 1
    }
    const cancel = dial({ host: "slow.test", port: 80, allowLoopback: false, client: "c", lookup }, () => {})
    cancel()
    expect(left).toBe(1)
  })

  it("says refused when the resource does", async () => {
    const { port, server } = await listening()
    await new Promise((resolve) => server.close(resolve))
    expect(await outcome({ host: "127.0.0.1", port, allowLoopback: true })).toBe("refused")
  })

  it("gives up in time, also during the lookup", async () => {
    const lookup: Lookup = () => () => {}
    expect(await outcome({ host: "slow.test", port: 80, allowLoopback: false, lookup, timeoutMs: 30 })).toBe(
      "timed_out"
    )
  })
})
