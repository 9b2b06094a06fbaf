// The rules of prose that a script can check. Comments in src: how a doc comment begins, words that the field does not use, and lines
// of at most 100 columns. Titles in test: at most ten words, and the same words. It cannot judge sense. Prints each fault with its place.
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import ts from "typescript"

const COLUMNS = 100
/** A title names one behaviour. A longer one is an explanation, which belongs in a comment. */
const TITLE_WORDS = 10
/** A doc comment begins with its subject. These begin a fragment that cannot be read alone. */
const FRAGMENT =
  /^(Of|By|Whom|What|That|And|Where|For|From|Without|With|As|In|On|At|To|Than|Whose|Which|So|Or|But|Nor|Since|Until|Through|Under|Over|Between|\.\.\.)\b/
/** Words of our own, and what the field says instead. */
const WORDS = new Map([
  ["translators?", "NAT"],
  ["ways? out", "default route"],
  ["doors?", "listener"],
  ["anew", "again"],
  ["whom", "a sentence with a subject"],
  ["so (long|often)", "how long or how often"],
  ["as such", "nothing"],
  ["for ever", "permanently"],
  ["good-bye", "close notice"],
  ["pass(es|ed)? over", "ignore"],
  ["(is|are|was|were) told", "is notified, or receives"],
  ["had all the same", "all have the same"],
  ["bears?", "carries"]
].map(([words, instead]) => [new RegExp(`\\b${words}\\b`, "i"), instead]))

const filesIn = (folder) =>
  execFileSync("git", ["ls-files", folder], { encoding: "utf8" }).split("\n").filter((file) => /\.tsx?$/.test(file))
let faults = 0

const commentsOf = (text, file) => {
  const found = new Map()
  const visit = (node) => {
    const ranges = [
      ...ts.getLeadingCommentRanges(text, node.getFullStart()) ?? [],
      ...ts.getTrailingCommentRanges(text, node.getEnd()) ?? []
    ]
    for (const { end, pos } of ranges) found.set(pos, end)
    for (const child of node.getChildren(file)) visit(child)
  }
  visit(file)
  return [...found]
}

/** The function that a call such as `it.each(table)("...")` is about. */
const calleeOf = (node) => {
  if (ts.isPropertyAccessExpression(node) || ts.isCallExpression(node)) return calleeOf(node.expression)
  if (ts.isTaggedTemplateExpression(node)) return calleeOf(node.tag)
  return ts.isIdentifier(node) ? node.text : ""
}

/** The titles of `describe`, `it` and `test`. A placeholder counts as one word. */
const titlesOf = (file) => {
  const found = []
  const visit = (node) => {
    const [title] = ts.isCallExpression(node) ? node.arguments : []
    if (title && /^(describe|it|test)$/.test(calleeOf(node))) {
      if (ts.isStringLiteralLike(title)) found.push([title, title.text])
      else if (ts.isTemplateExpression(title)) {
        const parts = title.templateSpans.map(({ literal }) => `X${literal.text}`)
        found.push([title, `${title.head.text}${parts.join("")}`])
      }
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

for (const name of filesIn("src")) {
  const text = readFileSync(name, "utf8")
  const file = ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true)
  for (const [pos, end] of commentsOf(text, file)) {
    const raw = text.slice(pos, end)
    if (raw.includes("oxlint-disable") || raw.includes("@ts-")) continue
    const { line } = file.getLineAndCharacterOfPosition(pos)
    const complain = (why) => {
      faults++
      process.stdout.write(`${name}:${line + 1}: ${why}: ${raw.replaceAll(/\s+/g, " ").slice(0, 80)}\n`)
    }
    const body = raw.replaceAll(/^\/\*+|\*\/$|^\/\/|^\s*\* ?/gm, "").trim()
    if (raw.startsWith("/**") && FRAGMENT.test(body)) complain("begins with a fragment, not with its subject")
    for (const [word, instead] of WORDS) if (word.test(body)) complain(`says "${word.exec(body)[0]}" for: ${instead}`)
    const start = text.lastIndexOf("\n", pos) + 1
    const widths = raw.split("\n").map((part, at) => part.length + (at === 0 ? pos - start : 0))
    if (Math.max(...widths) > COLUMNS) complain(`is wider than ${COLUMNS} columns`)
  }
}

for (const name of filesIn("test")) {
  const file = ts.createSourceFile(name, readFileSync(name, "utf8"), ts.ScriptTarget.Latest, true)
  for (const [node, title] of titlesOf(file)) {
    const complain = (why) => {
      faults++
      process.stdout.write(
        `${name}:${file.getLineAndCharacterOfPosition(node.getStart()).line + 1}: ${why}: ${title}\n`
      )
    }
    const count = title.split(/\s+/).filter((word) => /[\p{L}\p{N}%$]/u.test(word)).length
    if (count > TITLE_WORDS) complain(`has ${count} words, more than ${TITLE_WORDS}`)
    for (const [word, instead] of WORDS) if (word.test(title)) complain(`says "${word.exec(title)[0]}" for: ${instead}`)
  }
}

if (faults > 0) {
  process.stdout.write(`${faults} comments or titles to correct; CONTRIBUTING.md says how they are written\n`)
  process.exitCode = 1
}
