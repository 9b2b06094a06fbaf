import { describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import * as Lab from "./Lab.ts"

/** For hangs only. */
const DEADLINE = "100 seconds"

interface Told {
  readonly leg: { readonly kind: string | null; readonly relay: { readonly host: string } | null } | null
}

/** Waits until the client is bound at the relay's address `host` by UDP. */
const untilBound = (lab: Lab.Lab, host: string) =>
  lab.client("status", "--json").pipe(
    Effect.map((text) => (JSON.parse(text) as Told).leg),
    Effect.filterOrFail(
      (leg) => leg?.kind === "relay-udp" && leg.relay?.host === host,
      (leg) => new Lab.LabFailed({ message: `the leg is still ${JSON.stringify(leg)}` })
    ),
    Effect.retry({ schedule: Schedule.spaced("500 millis"), until: (error) => !error.message.includes("still") }),
    Effect.timeoutFail({
      duration: DEADLINE,
      onTimeout: () => new Lab.LabFailed({ message: `the client is not bound at ${host}` })
    })
  )

/** A flow gets through. The connector may come back later than the client. */
const fetched = (lab: Lab.Lab) =>
  Effect.retry(
    Effect.filterOrFail(
      lab.fetch("/file"),
      ({ code, sha256 }) => code === 0 && sha256 === Lab.FILE_SHA256,
      ({ code }) => new Lab.LabFailed({ message: `the flow ended with code ${code}` })
    ),
    { schedule: Schedule.spaced("1 second"), times: 60 }
  )

describe.skipIf(!Lab.isPossible)("the relay's addresses", () => {
  it.scopedLive("nodes follow the relay's name to addresses that come late", () =>
    // The client asks two name servers, and the first one never answers.
    Lab.use({ named: true, nodes: { path: "relay" }, before: [["dns", "client"]] }, (lab) =>
      Effect.gen(function*() {
        yield* untilBound(lab, Lab.RELAY)
        yield* lab.stop("relay")
        yield* lab.net("relayaddr", Lab.RELAY_2)
        yield* lab.net("named", Lab.RELAY_2)
        yield* lab.start("relay")
        yield* untilBound(lab, Lab.RELAY_2)
        yield* fetched(lab)
        yield* lab.stop("relay")
        yield* lab.net("relayaddr")
        yield* lab.start("relay") // before it has an address
        yield* lab.net("relayaddr", Lab.RELAY)
        yield* lab.net("named", Lab.RELAY)
        yield* untilBound(lab, Lab.RELAY)
        yield* fetched(lab)
      })))
})
