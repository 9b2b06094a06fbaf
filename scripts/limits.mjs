// Writes docs/limits.md from the constants of src: limits, time-outs, lifetimes and sizes, with their values and the first sentence of
// their doc comments. With `--check` it only tells whether the page is up to date. It reads the sources and runs none of them.
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import ts from "typescript"

const PAGE = "docs/limits.md"
/** Layers whose constants a user or an operator can meet, in the order of the page. */
const LAYERS = ["protocol", "session", "transport", "services", "actors", "roles", "cli", "browser", "app"]
/** A number counts as a limit if its name says so. */
const LIMIT =
  /^(MAX|MIN|LARGEST|LEAST|MOST|DEFAULT)_|_(MS|SECONDS|S|BYTES|CHARS|WINDOW|CAPACITY|LIMIT|BURST|PER_SECOND|TRIES|RETRIES|SENDS|PROBES|SOCKETS|LINKS|PINGS)$|^(CAPACITY|BUDGET|SLOTS|SOCKETS|SAMPLES|BUCKETS|WINS|LAST|PATIENCE|RESERVE)$/
const MS = { millis: 1, milliseconds: 1, seconds: 1000, minutes: 60_000, hours: 3_600_000, days: 86_400_000 }
const SUFFIXES = [
  [/(_MS|Ms)$/, "ms"],
  [/(_SECONDS|_S|Seconds)$/, "s"],
  [/(_BYTES|Bytes)$/, "bytes"],
  [/(_CHARS|Chars)$/, "characters"]
]

const files = new Map()
const read = (name) => {
  const known = files.get(name)
  if (known !== undefined) return known
  const source = ts.createSourceFile(name, readFileSync(name, "utf8"), ts.ScriptTarget.Latest, true)
  const file = { constants: new Map(), imports: new Map(), name, source, types: new Map() }
  files.set(name, file)
  for (const statement of source.statements) {
    if (ts.isVariableStatement(statement)) {
      for (const it of statement.declarationList.declarations) file.constants.set(it.name.getText(), { it, statement })
    } else if (ts.isInterfaceDeclaration(statement)) {
      file.types.set(statement.name.text, statement)
    } else if (ts.isImportDeclaration(statement) && statement.moduleSpecifier.text.startsWith(".")) {
      const from = normalize(join(dirname(name), statement.moduleSpecifier.text))
      const bound = statement.importClause?.namedBindings
      if (bound === undefined) continue
      if (ts.isNamespaceImport(bound)) file.imports.set(bound.name.text, { from })
      else {
        for (const it of bound.elements) {
          file.imports.set(it.name.text, { from, name: (it.propertyName ?? it.name).text })
        }
      }
    }
  }
  return file
}

/** The value of an expression: a number, a duration `{ms}`, an object, or `null` if this script cannot tell. */
const valueOf = (file, node) => {
  if (ts.isNumericLiteral(node)) return Number(node.text)
  if (ts.isParenthesizedExpression(node) || ts.isAsExpression(node)) return valueOf(file, node.expression)
  if (ts.isStringLiteral(node)) {
    const [, count, unit] = /^([\d.]+) (\w+)$/.exec(node.text) ?? []
    return MS[unit] === undefined && MS[`${unit}s`] === undefined ? null : { ms: count * (MS[unit] ?? MS[`${unit}s`]) }
  }
  if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.MinusToken) {
    const of = valueOf(file, node.operand)
    return typeof of === "number" ? -of : null
  }
  if (ts.isBinaryExpression(node)) {
    const [a, b] = [valueOf(file, node.left), valueOf(file, node.right)]
    const compute = OPERATORS[node.operatorToken.kind]
    return typeof a === "number" && typeof b === "number" && compute !== undefined ? compute(a, b) : null
  }
  if (ts.isCallExpression(node)) {
    const [, unit] = /^Duration\.(\w+)$/.exec(node.expression.getText()) ?? []
    const count = node.arguments[0] === undefined ? null : valueOf(file, node.arguments[0])
    return MS[unit] !== undefined && typeof count === "number" ? { ms: count * MS[unit] } : null
  }
  // Only the soak test's build defines SHORT_LIFETIMES.
  if (ts.isConditionalExpression(node) && node.condition.getText().includes("typeof SHORT_LIFETIMES")) {
    return valueOf(file, node.whenFalse)
  }
  if (ts.isArrayLiteralExpression(node)) {
    const values = node.elements.map((it) => valueOf(file, it))
    return values.every((it) => typeof it === "number") && values.length > 0 ? values : null
  }
  if (ts.isObjectLiteralExpression(node)) return { at: file, fields: node }
  if (ts.isIdentifier(node)) return named(file, node.text)
  if (ts.isPropertyAccessExpression(node)) {
    const module = ts.isIdentifier(node.expression) ? file.imports.get(node.expression.text) : undefined
    if (module !== undefined && module.name === undefined) return named(read(module.from), node.name.text)
    const of = valueOf(file, node.expression)
    if (Array.isArray(of) && node.name.text === "length") return of.length
    const field = of?.fields?.properties.find((it) =>
      ts.isPropertyAssignment(it) && it.name.getText() === node.name.text
    )
    return field === undefined ? null : valueOf(of.at, field.initializer)
  }
  return null
}
const OPERATORS = {
  [ts.SyntaxKind.AsteriskToken]: (a, b) => a * b,
  [ts.SyntaxKind.AsteriskAsteriskToken]: (a, b) => a ** b,
  [ts.SyntaxKind.SlashToken]: (a, b) => a / b,
  [ts.SyntaxKind.PlusToken]: (a, b) => a + b,
  [ts.SyntaxKind.MinusToken]: (a, b) => a - b,
  [ts.SyntaxKind.LessThanLessThanToken]: (a, b) => a << b
}
const named = (file, name) => {
  const here = file.constants.get(name)
  if (here?.it.initializer !== undefined) return valueOf(file, here.it.initializer)
  const from = file.imports.get(name)
  return from?.name === undefined ? null : named(read(from.from), from.name)
}

/** A declaration's comment, right before it or at the end of its line. Empty if it has none. */
const commentOf = (node) => {
  const text = node.getSourceFile().text
  const before = (ts.getLeadingCommentRanges(text, node.getFullStart()) ?? []).at(-1)
  const own = before !== undefined && text.startsWith("/**", before.pos) &&
    !/\n\s*\n/.test(text.slice(before.end, node.getStart()))
  const range = own ? before : ts.getTrailingCommentRanges(text, node.getEnd())?.[0]
  const words = range === undefined ? "" : text.slice(range.pos, range.end).replace(/^\/[*/]+/, "").replace(/\*\/$/, "")
  return words.replaceAll(/^\s*\* ?/gm, "").replaceAll(/\s+/g, " ").trim()
}

const number = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 3 })
const time = (ms) => {
  const [unit, size] = [["days", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000], ["ms", 1]].find((
    [, it],
    at
  ) => at === 4 || (ms >= it * (at === 2 ? 2 : 1) && Number.isInteger((ms / it) * 10)))
  return ms === size && unit === "days" ? "1 day" : `${number(ms / size)} ${unit}`
}
const bytes = (value) =>
  [["MiB", 2 ** 20], ["KiB", 1024]].map(([unit, size]) =>
    value % size === 0 && value > 0 && `${number(value / size)} ${unit}`
  )
    .find(Boolean) || `${number(value)} bytes`
const shown = (value, unit) => {
  if (Array.isArray(value)) return value.map((it) => shown(it, unit)).join(", ")
  if (value.ms !== undefined) return time(value.ms)
  if (unit === "ms" || unit === "s") return time(unit === "s" ? value * 1000 : value)
  if (unit === "bytes") return bytes(value)
  return unit === undefined ? number(value) : `${number(value)} ${unit}`
}
const unitOf = (name, comment) =>
  SUFFIXES.find(([suffix]) => suffix.test(name))?.[1] ?? UNITS[/\bin (bytes|seconds|characters)\b/.exec(comment)?.[1]]
const UNITS = { bytes: "bytes", characters: "characters", seconds: "s" }
/** The first sentence of a comment, without the unit that the value already shows. */
const aboutOf = (comment) =>
  /^.*?[.:](?= [A-Z]| -|$)|^.*$/.exec(comment)[0].replace(/[.:]$/, "")
    .replaceAll(/,? in (ms|milliseconds|seconds|bytes|characters)\b/g, "").replaceAll(/\{@link ([\w.]+)\}/g, "`$1`")

/** Tables that hold no limits, or not those of an ordinary build: empty values, and the parts of `LIFETIMES`. */
const OTHER_TABLES = /^(NO|SHORT$|SOURCES$)/
/** Rows of the page for one constant: none, one, or one for each field of an object. */
const rowsOf = (file, name, { it, statement }) => {
  if (
    it.initializer === undefined || !/^[A-Z][A-Z\d_]*$/.test(name) || /EPOCH|DATE/.test(name) ||
    /^0x/.test(it.initializer.getText())
  ) return []
  const value = valueOf(file, it.initializer)
  const comment = commentOf(statement)
  if (value?.fields !== undefined) return fieldsOf(file, name, it, value)
  if (comment === "" || !(value?.ms !== undefined || LIMIT.test(name))) return []
  if (value === null && !ts.isBinaryExpression(it.initializer) && !ts.isCallExpression(it.initializer)) return []
  const written = `\`${it.initializer.getText().replaceAll(/\s+/g, " ")}\``
  return [{
    about: aboutOf(comment),
    name,
    value: value === null || value > Number.MAX_SAFE_INTEGER ? written : shown(value, unitOf(name, comment))
  }]
}
const fieldsOf = (file, name, { type }, { at, fields }) => {
  if (type === undefined || OTHER_TABLES.test(name)) return []
  const declared = file.types.get(type.getText()) ?? (() => {
    const from = file.imports.get(type.getText().split(".")[0])
    return from && read(from.from).types.get(type.getText().split(".").at(-1))
  })()
  if (declared === undefined) return []
  const inSeconds = / in seconds/.test(commentOf(declared))
  return fields.properties.flatMap((field) => {
    const value = ts.isPropertyAssignment(field) ? valueOf(at, field.initializer) : null
    const member = declared.members.find((it) => it.name?.getText() === field.name?.getText())
    const comment = member === undefined ? "" : commentOf(member)
    if (comment === "" || !(typeof value === "number" || value?.ms !== undefined)) return []
    const key = field.name.getText()
    const unit = unitOf(key, comment) ?? (inSeconds ? "s" : undefined)
    return [{ about: aboutOf(comment), name: `${name}.${key}`, value: shown(value, unit) }]
  })
}

const names = execFileSync("git", ["ls-files", "src"], { encoding: "utf8" }).split("\n").filter((it) =>
  /\.tsx?$/.test(it)
)
const lines = [
  "<!-- dprint-ignore-file -->",
  "",
  "# Limits, times and sizes",
  "",
  "Generated by `npm run limits` from the constants of `src`; do not edit. Most of them cannot be configured: what can is in",
  "[config/](../config). A value is that of an ordinary build. What happens at a limit is in the module's own comments and, for those",
  "that an operator should see, in [decision 32](decisions/0032-limits.md), `sallyport status` and `sallyport doctor`.",
  ""
]
for (const layer of LAYERS) {
  const folders = new Map()
  for (const name of names.filter((it) => it.startsWith(`src/${layer}/`))) {
    const file = read(name)
    for (const [constant, declared] of file.constants) {
      for (const row of rowsOf(file, constant, declared)) {
        const folder = dirname(name).slice("src/".length)
        folders.set(folder, [...folders.get(folder) ?? [], { ...row, file: name.slice(dirname(name).length + 1) }])
      }
    }
  }
  for (const [folder, rows] of folders) {
    lines.push(`## ${folder}`, "", "| constant | value | what it is | module |", "| --- | --- | --- | --- |")
    const cell = (text) => text.replaceAll("|", "\\|")
    for (const it of rows) lines.push(`| \`${it.name}\` | ${it.value} | ${cell(it.about)} | \`${it.file}\` |`)
    lines.push("")
  }
}
const page = lines.join("\n")

if (!process.argv.includes("--check")) writeFileSync(PAGE, page)
else if (readFileSync(PAGE, "utf8") !== page) {
  process.stdout.write(
    `${PAGE} does not show the constants as they are in src: run npm run limits, and commit the page\n`
  )
  process.exitCode = 1
}
