/**
 * Report of a node about itself for its relay, which shows the whole network. Only a node that
 * consents sends it, and it contains no address and no resource. It travels as JSON text, whose
 * length the relay checks before it parses it. Whoever shows it may rely on its form: it contains
 * no control character.
 */
import { Schema } from "effect"
import * as HostName from "../bytes/HostName.ts"
import { PATH_KINDS } from "../path/PathKind.ts"

/** Longest message, in characters. The limits below add up to it. */
export const MAX_CHARS = 16 * 1024
/** Most peers in one report. `peersInAll` counts the others, too. */
export const MAX_PEERS = 64
/** Most different answers in `flows`. */
const MAX_CODES = 32
/** Most findings in one message. */
export const MAX_FINDINGS = 16
/** Longest text of a finding, in characters. */
export const MAX_TEXT_CHARS = 220

/**
 * A reason, a code or a version, never a sentence. The set is open, because a newer node has words
 * that this relay does not know.
 */
const Word = Schema.String.pipe(Schema.pattern(/^[\w.+-]{1,40}$/))
const Count = Schema.NonNegativeInt
const Text = Schema.String.pipe(Schema.pattern(/^\P{Cc}*$/u), Schema.maxLength(MAX_TEXT_CHARS))

const Name = Schema.String.pipe(Schema.filter((text) => HostName.normalize(text) !== null || "expected a name"))

/** Report on one peer of the node. */
export const PeerReport = Schema.Struct({
  /** The peer's name. Nodes send it as it is compared; the relay shows it as it was written. */
  name: Name,
  path: Schema.Literal(...PATH_KINDS),
  /** Reason for the path: a `PathRef.Reason`, or `relay_only`. */
  reason: Word,
  rttMs: Schema.NullOr(Schema.Number.pipe(Schema.between(0, 600_000))),
  /**
   * Time since the session came to this path, by the node's own clock. `null` if that was before
   * the node looked.
   */
  pathAgeSeconds: Schema.NullOr(Count)
})
export type PeerReport = typeof PeerReport.Type

/** Report of a node about itself. */
export const NodeReport = Schema.Struct({
  /** Version of this program. */
  version: Word,
  /** Version of Node.js. */
  runtime: Word,
  /** Platform that the program and Node.js run on. */
  platform: Word,
  peers: Schema.Array(PeerReport).pipe(Schema.maxItems(MAX_PEERS)),
  peersInAll: Count,
  /** Number of flows since the node's start, by answer: `accepted`, or the reason why not. */
  flows: Schema.Record({ key: Word, value: Count }).pipe(
    Schema.filter((codes) => Object.keys(codes).length <= MAX_CODES || "too many codes")
  )
})
export type NodeReport = typeof NodeReport.Type

/** One finding of the node's doctor. */
export const Finding = Schema.Struct({
  /** `broken`: something does not work. `poor`: it works, and could be better. */
  severity: Schema.Literal("broken", "poor"),
  code: Word,
  what: Text,
  remedy: Text
})
/** All findings of a node's doctor. */
export const Findings = Schema.Array(Finding).pipe(Schema.maxItems(MAX_FINDINGS))
export type Findings = typeof Findings.Type

/** A report as JSON text. */
export const ReportText = Schema.parseJson(NodeReport)
/** Findings as JSON text. */
export const FindingsText = Schema.parseJson(Findings)
