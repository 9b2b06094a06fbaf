/**
 * Three lives of everything by the lifetimes of the soak test, so that one flow can stay open and in use over all of them: by the
 * released ones its packets would take too long to compute. Both nodes are relayed, so the flow depends on each document.
 */
import { vi } from "vitest"
import { SHORT } from "../../src/protocol/trust/Lifetimes.ts"
import * as LivesRun from "./nodes/LivesRun.ts"

vi.hoisted(() => void Object.assign(globalThis, { SHORT_LIFETIMES: true })) // as `scripts/build.mjs --short-lifetimes`

LivesRun.test("one flow stays open through three lives of everything", "lives", SHORT, { relayed: true, oldFlow: true })
