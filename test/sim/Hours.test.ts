/** Hours of two whole nodes and their relay, by the released lifetimes: each passes three times, and nothing is lost. */
import { NORMAL } from "../../src/protocol/trust/Lifetimes.ts"
import * as LivesRun from "./nodes/LivesRun.ts"

LivesRun.test("no flow and no leg is lost in three lives", "hours", NORMAL, { relayed: false, oldFlow: false })
