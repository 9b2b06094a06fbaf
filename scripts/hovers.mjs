// Prints exported symbols of src, chosen at random, each with its place and the text that an editor shows in its hover box. A reader
// sees only that text, so read each one alone. `node scripts/hovers.mjs --seed 7 --count 30`; the same seed chooses the same symbols.
// An editor also shows a method the comment of the interface that its class implements. This script does not know types.
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { parseArgs } from "node:util"
import ts from "typescript"

const { values } = parseArgs({
  options: { count: { type: "string", default: "30" }, seed: { type: "string", default: "1" } }
})

/** Numbers from 0 to 1, without 1, that depend on the seed alone. */
const randomFrom = (seed) => {
  let turn = 0
  return () => createHash("sha256").update(`${seed} ${turn++}`).digest().readUInt32BE() / 2 ** 32
}

const isExported = (node) => node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) ?? false
const isHidden = (node) =>
  (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Private) !== 0 || ts.isPrivateIdentifier(node.name)
const isDeclaration = (node) =>
  ts.isFunctionDeclaration(node) || ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node) ||
  ts.isTypeAliasDeclaration(node)
const isMember = (node) =>
  (ts.isClassElement(node) || ts.isTypeElement(node)) && node.name !== undefined && !isHidden(node)

const hoverOf = (node) =>
  ts.getJSDocCommentsAndTags(node)
    .map((part) => part.getText().replaceAll(/^\/\*\*\s*|\s*\*\/$/g, "").replaceAll(/^\s*\* ?/gm, ""))
    .join("\n")

/** Every exported declaration of a file, and every member that can be reached from it. */
const symbolsOf = (name) => {
  const file = ts.createSourceFile(name, readFileSync(name, "utf8"), ts.ScriptTarget.Latest, true)
  const found = []
  const add = (node, path) => {
    const { line } = file.getLineAndCharacterOfPosition(node.name.getStart())
    found.push({ hover: hoverOf(node), path, place: `${name}:${line + 1}` })
  }
  const members = (node, path) => {
    // Code inside a method or a function has no members for a caller, and neither has a private member.
    if (ts.isBlock(node) || ts.isArrowFunction(node) || ts.isFunctionExpression(node)) return
    if (ts.isClassElement(node) && node.name !== undefined && isHidden(node)) return
    const inner = isMember(node) ? `${path}.${node.name.getText()}` : path
    if (isMember(node) && !inner.endsWith("._tag")) add(node, inner)
    ts.forEachChild(node, (child) => members(child, inner))
  }
  for (const statement of file.statements.filter(isExported)) {
    const declarations = ts.isVariableStatement(statement) ? statement.declarationList.declarations : [statement]
    for (const node of declarations) {
      if (!ts.isVariableDeclaration(node) && !isDeclaration(node)) continue
      add(node, node.name.getText())
      ts.forEachChild(node, (child) => members(child, node.name.getText()))
    }
  }
  // A type that is derived from a schema of the same name shares its comment.
  const commented = new Map(found.filter(({ hover }) => hover).map((symbol) => [symbol.path, symbol.hover]))
  return found.map((symbol) => symbol.hover ? symbol : { ...symbol, hover: commented.get(symbol.path) ?? "" })
}

const names = execFileSync("git", ["ls-files", "src"], { encoding: "utf8" }).split("\n")
const symbols = names.filter((name) => /\.tsx?$/.test(name)).flatMap(symbolsOf)
const random = randomFrom(values.seed)
for (let left = Number(values.count); left > 0 && symbols.length > 0; left--) {
  const [{ hover, path, place }] = symbols.splice(Math.floor(random() * symbols.length), 1)
  process.stdout.write(`${place} ${path}\n${(hover || "(no comment)").replaceAll(/^/gm, "  ")}\n\n`)
}
