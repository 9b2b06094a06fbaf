import net from "node:net"
import { describe, expect, it } from "vitest"
import { dial, isAllowed, type Result, type Target } from "../../src/transport/flow/Dialer.ts"

const once = (target: Target) => new Promise<Result>((resolve) => dial(target, resolve))
const outcome = async (target: Target) => {
  const result = await once(target)
  if (result._tag === "Connected") result.reader.socket.destroy()
  return result._tag === "Connected" ? result.address : result.code
}
const listening = async () => {
  const server = net.createServer((socket) => socket.on("error", () => {}))
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return { server, port: (server.address() as net.AddressInfo).port }
}
const failing = (code: string) => () => Promise.reject(Object.assign(new Error(code), { code }))

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

  it("says to which address a denied name leads, and what permits it", async () => {
    const lookup = () => Promise.resolve([{ address: "127.0.1.1", family: 4 }])
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

  it("refuses a name that leads to the connector itself, unless the resource allows it", async () => {
    const { port, server } = await listening()
    const lookup = () => Promise.resolve([{ address: "127.0.0.1", family: 4 }])
    expect(await outcome({ host: "rebind.test", port, allowLoopback: false, lookup })).toBe("denied")
    expect(await outcome({ host: "127.0.0.1", port, allowLoopback: false })).toBe("denied")
    expect(await outcome({ host: "rebind.test", port, allowLoopback: true, lookup })).toBe("127.0.0.1")
    server.close()
  })

  it("resolves once and dials only what it checked", async () => {
    const { port, server } = await listening()
    let asked = 0
    const lookup = () => {
      asked += 1
      return Promise.resolve([{ address: "127.0.0.1", family: 4 }])
    }
    expect(await outcome({ host: "twice.test", port, allowLoopback: true, lookup })).toBe("127.0.0.1")
    expect(asked).toBe(1)
    server.close()
  })

  it("goes on to the next address when one fails", async () => {
    const { port, server } = await listening()
    const lookup = () => Promise.resolve([{ address: "127.0.0.2", family: 4 }, { address: "127.0.0.1", family: 4 }])
    expect(await outcome({ host: "two.test", port, allowLoopback: true, lookup })).toBe("127.0.0.1")
    server.close()
  })

  it.each([
    ["ENOTFOUND", "name_not_found"],
    ["EAI_AGAIN", "timed_out"],
    ["EHOSTUNREACH", "unreachable"],
    ["ENETUNREACH", "unreachable"],
    ["ETIMEDOUT", "timed_out"],
    ["EWHATEVER", "internal"]
  ])("says what %s means", async (code, verdict) => {
    expect(await outcome({ host: "x.test", port: 80, allowLoopback: false, lookup: failing(code) })).toBe(verdict)
  })

  it("says refused when the resource does", async () => {
    const { port, server } = await listening()
    await new Promise((resolve) => server.close(resolve))
    expect(await outcome({ host: "127.0.0.1", port, allowLoopback: true })).toBe("refused")
  })

  it("gives up in time, also while the name is being resolved", async () => {
    const lookup = () => new Promise<never>(() => {})
    expect(await outcome({ host: "slow.test", port: 80, allowLoopback: false, lookup, timeoutMs: 30 })).toBe(
      "timed_out"
    )
  })
})
