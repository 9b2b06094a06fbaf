/**
 * A YAML text with the positions of its keys and values. Messages never repeat the text, because it
 * may contain a secret.
 */
import {
  type Document,
  type ErrorCode,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type YAMLError
} from "yaml"
import { type Finding, masked, type Path } from "./ConfigIssue.ts"

/** A position in the text. Both numbers count from 1. */
export type Place = { readonly line: number; readonly column: number }

/** A parsed YAML text. */
export type YamlSource = {
  /** Content of the text as plain data. `null` or `undefined` if the text contains nothing. */
  readonly value: unknown
  /** Whether the keys can be checked. `false` if the syntax is too wrong for that. */
  readonly readable: boolean
  /** Mistakes in the syntax. */
  readonly problems: ReadonlyArray<{ readonly place: Place; readonly message: string }>
  /**
   * Returns the position of a finding: of its key, of its value, or of the mapping that lacks the
   * key.
   */
  readonly locate: (finding: Pick<Finding, "path" | "at">) => Place
}

/** Most alias expansions in one text, against "billion laughs" attacks. */
const MAX_ALIASES = 100

/** Parses a YAML text. Never throws; syntax errors are in `problems`. */
export const parse = (text: string): YamlSource => {
  const lines = new LineCounter()
  const place = (offset: number): Place => {
    const { col, line } = lines.linePos(Math.min(offset, text.length))
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
  const failed = (offset: number, message: string): YamlSource => ({
    value: undefined,
    readable: false,
    problems: [{ place: place(offset), message }],
    locate: () => place(0)
  })
  let document: Document
  try {
    document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true, logLevel: "silent" })
  } catch {
    return failed(0, "found a text that the YAML reader cannot take in; expected YAML; nest it less deeply")
  }
  const faults = [...document.errors, ...document.warnings]
  const problems = faults.map((fault) => ({ place: place(fault.pos[0]), message: syntax(text, fault) }))
  if (faults.some(({ code }) => code !== "DUPLICATE_KEY")) {
    return { value: undefined, readable: false, problems, locate: () => place(0) }
  }
  try {
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES })
    return { value, readable: true, problems, locate: (finding) => place(offsetOf(document, finding)) }
  } catch {
    return failed(0, `found aliases that expand too far; expected at most ${MAX_ALIASES}; write the values out`)
  }
}

const offsetOf = (document: Document, { at, path }: { readonly at: Finding["at"]; readonly path: Path }): number => {
  let node = resolve(document, document.contents)
  let key: number | undefined
  let value = node?.range?.[0]
  for (const part of at === "parent" ? path.slice(0, -1) : path) {
    const child = childOf(node, part)
    if (child === undefined) break
    node = resolve(document, child.value)
    key = child.key
    value = child.value?.range?.[0] ?? key
    if (isScalar(child.value) && child.value.value === null) value = key ?? value
  }
  return (at === "value" ? value : key ?? value) ?? 0
}

const childOf = (node: Node | null, part: PropertyKey): { key: number | undefined; value: Node | null } | undefined => {
  if (isSeq(node) && typeof part === "number") {
    const item = node.items[part]
    return isNode(item) ? { key: item.range?.[0], value: item } : undefined
  }
  if (!isMap(node)) return undefined
  const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(part))
  if (pair === undefined) return undefined
  return {
    key: isNode(pair.key) ? pair.key.range?.[0] : undefined,
    value: isNode(pair.value) ? pair.value : null
  }
}

const resolve = (document: Document, node: unknown): Node | null => {
  if (isAlias(node)) return node.resolve(document) ?? null
  return isNode(node) ? node : null
}

const syntax = (text: string, { code, message, pos }: YAMLError): string => {
  if (code === "DUPLICATE_KEY") {
    const key = /^["']?([\w.-]{1,40})/.exec(text.slice(pos[0], pos[0] + 48))?.[1]
    return `found the key ${
      key === undefined ? "" : `${masked(key)} `
    }a second time; expected each key once in a mapping; remove one of the two`
  }
  if (code === "MISSING_CHAR" && /quote/i.test(message)) {
    return "found a quote that is never closed; expected a second quote; close it on this line"
  }
  return SYNTAX[code] ?? "found text that is not YAML; expected `key: value` lines; correct this line"
}

const SYNTAX: { readonly [code in ErrorCode]?: string } = {
  TAB_AS_INDENT: "found a tab as indentation; expected spaces; replace the tab with spaces",
  BAD_INDENT: "found wrong indentation; expected the indentation of the lines around it; indent with spaces",
  MISSING_CHAR:
    "found a line with a part missing, such as `: ` after a key, a comma, a quote or a closing bracket; expected `key: value`; complete the line",
  MULTILINE_IMPLICIT_KEY:
    "found a key that runs over several lines; expected `key: value`; check for a missing `: ` or quote",
  BLOCK_AS_IMPLICIT_KEY:
    "found a second `: ` in one line; expected one `key: value`; quote the value or begin a new line",
  BAD_SCALAR_START:
    "found a value that starts with a character reserved in YAML; expected plain text; put the value in double quotes",
  BAD_DQ_ESCAPE:
    "found a backslash that escapes nothing in double quotes; expected an escape such as \\n; use single quotes",
  BAD_ALIAS:
    "found an alias (*) without its anchor (&); expected the anchor first; quote the value if it starts with * by chance",
  NON_STRING_KEY: "found a key that is not text; expected `key: value`; put the key in double quotes",
  TAG_RESOLVE_FAILED: "found a tag (!), which means nothing here; expected plain values; remove the tag",
  MULTIPLE_DOCS: "found a second document (---); expected one document in a file; move it to a file of its own",
  UNEXPECTED_TOKEN:
    "found a bracket, comma or other sign where a key or value belongs; expected `key: value`; check brackets, quotes and the line above",
  RESOURCE_EXHAUSTION: "found a text nested too deeply; expected a few levels; nest it less deeply"
}
