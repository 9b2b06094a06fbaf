/**
 * What a node that consents tells its relay of itself, for the view of the whole network: no address, no resource. It travels as
 * JSON text, which the relay measures before it reads it. Whoever shows it may trust its form: no control character is in it.
 */
import { Schema } from "effect"
import { Name } from "./Documents.ts"
import { PATH_KINDS } from "./PathKind.ts"

/** Of one message, as text: as much as the limits below come to. */
export const MAX_CHARS = 16 * 1024
/** Of the peers that a node has; `peersInAll` tells of the others. */
export const MAX_PEERS = 64
const MAX_CODES = 32
export const MAX_FINDINGS = 16
/** Of each of the texts of a finding. */
export const MAX_TEXT_CHARS = 220

/** A reason, a code or a version: never a sentence. Open, since a newer node has words that this relay does not know. */
const Word = Schema.String.pipe(Schema.pattern(/^[\w.+-]{1,40}$/))
const Count = Schema.NonNegativeInt
const Text = Schema.String.pipe(Schema.pattern(/^\P{Cc}*$/u), Schema.maxLength(MAX_TEXT_CHARS))

export const PeerReport = Schema.Struct({
  name: Name,
  path: Schema.Literal(...PATH_KINDS),
  /** As `PathRef.Reason`, or `relay_only`. */
  reason: Word,
  rttMs: Schema.NullOr(Schema.Number.pipe(Schema.between(0, 600_000))),
  /** Since the session came to this path, by the node's own clock; null: from before it looked. */
  pathAgeSeconds: Schema.NullOr(Count)
})
export type PeerReport = typeof PeerReport.Type

export const NodeReport = Schema.Struct({
  /** Of this program, of Node.js, and of what both run on. */
  version: Word,
  runtime: Word,
  platform: Word,
  peers: Schema.Array(PeerReport).pipe(Schema.maxItems(MAX_PEERS)),
  peersInAll: Count,
  /** Flows since its start, by the answer: `accepted`, or why not. */
  flows: Schema.Record({ key: Word, value: Count }).pipe(
    Schema.filter((codes) => Object.keys(codes).length <= MAX_CODES || "too many codes")
  )
})
export type NodeReport = typeof NodeReport.Type

/** What its doctor says. */
export const Finding = Schema.Struct({
  /** `broken`: something does not work. `poor`: it works, and could be better. */
  severity: Schema.Literal("broken", "poor"),
  code: Word,
  what: Text,
  remedy: Text
})
export const Findings = Schema.Array(Finding).pipe(Schema.maxItems(MAX_FINDINGS))
export type Findings = typeof Findings.Type

export const ReportText = Schema.parseJson(NodeReport)
export const FindingsText = Schema.parseJson(Findings)
