import { assert, describe, it } from "@effect/vitest"
import * as Redact from "../../src/services/telemetry/Redact.ts"

const attribute = (key: string, stringValue: string) => ({ key, value: { stringValue } })

describe("what is exported", () => {
  it("has no address and no attribute that names a host", () => {
    const body = {
      resourceLogs: [{
        body: { stringValue: "path changed to 198.51.100.7|40000 or [2001:db8::7]:1" },
        attributes: [
          attribute("path", "198.51.100.7|40000"),
          attribute("host", "intranet"),
          attribute("reason", "direct_proved")
        ],
        kvlistValue: { values: [attribute("deep", "10.0.0.1:80")] }
      }],
      droppedAttributesCount: 0
    }
    assert.deepStrictEqual(JSON.parse(Redact.otlp(body)), {
      resourceLogs: [{
        body: { stringValue: "path changed to (ipv4)|40000 or [(ipv6)]:1" },
        attributes: [attribute("path", "(ipv4)|40000"), attribute("reason", "direct_proved")],
        kvlistValue: { values: [attribute("deep", "(ipv4):80")] }
      }],
      droppedAttributesCount: 0
    })
  })

  it("keeps ids, times, versions and what is everybody's", () => {
    const kept = {
      traceId: "0af7651916cd43dd8448eb211c80319c",
      at: "1795464062000000000",
      text: "v20.20.2 on 127.0.0.1 and ::1 at 20:41:02"
    }
    assert.deepStrictEqual(JSON.parse(Redact.otlp(kept)), kept)
  })
})
