/** `docs/api.md` shows what the two modules export, and the examples as other tests run them. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import ts from "typescript"
import { assert, describe, it } from "vitest"
import { VERDICTS } from "../../src/protocol/flow/FlowWire.ts"
import { PATH_KINDS } from "../../src/protocol/path/PathKind.ts"
import { RunFailed } from "../../src/roles/Run.ts"
import { DialFailed, FlowBroken, Sallyport } from "../../src/roles/Sallyport.ts"
import type { ConfigInput } from "../../src/services/config/Config.ts"

const ROOT = join(import.meta.dirname, "../..")
const page = readFileSync(join(ROOT, "docs/api.md"), "utf8")

const parse = (file: string) =>
  ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest, true).statements

interface Exported {
  readonly name: string
  readonly members: ReadonlyArray<string>
}

/** Exports of a module, with the members that its interfaces and classes declare. */
const exportsOf = (file: string, only: ReadonlySet<string> | null = null): ReadonlyArray<Exported> =>
  parse(file).flatMap((statement): ReadonlyArray<Exported> => {
    if (ts.isExportDeclaration(statement) && statement.exportClause && ts.isNamedExports(statement.exportClause)) {
      const here = statement.exportClause.elements.map(({ name }) => name.text)
      const names = new Set(here.filter((name) => only === null || only.has(name)))
      const from = (statement.moduleSpecifier as ts.StringLiteral).text
      return exportsOf(join(dirname(file), from), names)
    }
    const isExported = ts.canHaveModifiers(statement) &&
      (ts.getModifiers(statement) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)
    if (!isExported) return []
    const members = ts.isInterfaceDeclaration(statement) || ts.isClassDeclaration(statement)
      ? [...statement.members].flatMap(({ name }) => name === undefined ? [] : [name.getText()])
      : []
    const names = ts.isVariableStatement(statement)
      ? statement.declarationList.declarations.map(({ name }) => name.getText())
      : [(statement as ts.InterfaceDeclaration).name.text]
    return names.filter((name) => only === null || only.has(name)).map((name) => ({ name, members }))
  })

/** Literals of an error's field in a module for pages, whose types are not those of Node. */
const literalsIn = (module: string, field: string): ReadonlyArray<string> => {
  const text = readFileSync(join(ROOT, "src/browser", module), "utf8")
  const [, list = ""] = new RegExp(`${field}: Schema\\.Literal\\(([^)]*)\\)`).exec(text) ?? []
  return [...list.matchAll(/"(\w+)"/g)].map(([, literal = ""]) => literal)
}

/** The part of the page about one module, by the first line of its heading. */
const chapter = (heading: string) => {
  const [, text] = page.split(`\n## ${heading}\n`)
  assert.isDefined(text, `no chapter ${heading}`)
  return text.split("\n## ")[0]!
}
const section = (text: string, name: string) => {
  const [, found] = text.split(`\n### \`${name}\`\n`)
  assert.isDefined(found, `no section about ${name}`)
  return found.split("\n### ")[0]!
}

describe("docs/api.md", () => {
  it.each([
    ["`sallyport`", "src/index.ts", 12],
    ["`sallyport/browser`", "src/browser/index.ts", 9]
  ])("describes each export of %s with its members", (heading, module, count) => {
    const text = chapter(heading)
    const exported = exportsOf(join(ROOT, module))
    assert.lengthOf(exported, count)
    for (const { members, name } of exported) {
      const about = section(text, name)
      for (const member of members) assert.match(about, new RegExp(`\`${member}[\`(?]`), `${name} lacks ${member}`)
    }
    const described = [...text.matchAll(/^### `(.+)`$/gm)].map(([, name]) => name)
    assert.sameMembers(described, exported.map(({ name }) => name))
  })

  it.each([
    ["`sallyport`", "RunFailed", Object.keys(RunFailed.fields)],
    ["`sallyport`", "FlowBroken", Object.keys(FlowBroken.fields)],
    ["`sallyport`", "DialFailed", [...Object.keys(DialFailed.fields), ...DialFailed.fields.reason.literals]],
    ["`sallyport`", "PathKind", PATH_KINDS],
    ["`sallyport/browser`", "ConnectFailed", literalsIn("PageRelay.ts", "reason")],
    ["`sallyport/browser`", "OpenFailed", [...VERDICTS.slice(1), ...literalsIn("PageSessions.ts", "code")]]
  ])("in %s, %s says what each value means", (heading, name, values) => {
    const about = section(chapter(heading), name)
    assert.isNotEmpty(values)
    for (const value of values.filter((it) => it !== "_tag")) {
      assert.include(about, `| \`${value}\``, `${name} lacks ${value}`)
    }
  })

  it("shows each example as it is run", () => {
    const shown = new Map(
      [...page.matchAll(/`examples\/([\w-]+\.mjs)`[^`]*```js\n([^]*?)```/g)].map(([, name, code]) => [name, code])
    )
    const files = readdirSync(join(ROOT, "examples")).filter((name) => name.endsWith(".mjs"))
    assert.sameMembers([...shown.keys()], files)
    for (const name of files) assert.strictEqual(shown.get(name), readFileSync(join(ROOT, "examples", name), "utf8"))
  })
})

describe("a role that cannot start", () => {
  it.each([
    ["a wrong configuration", { role: "client", name: "no name" }, "name"],
    ["a lost identity", {
      role: "relay",
      name: "relay",
      advertise: { host: "127.0.0.1" },
      listen: { https: "127.0.0.1:0", udp: "127.0.0.1:0" }
    }, "state"]
  ])("needs a person after %s", async (_, config, said) => {
    const stateDir = mkdtempSync(join(tmpdir(), "sallyport-api-"))
    try {
      const failed: unknown = await Sallyport.start({ ...config, stateDir } as ConfigInput).catch((error) => error)
      assert.instanceOf(failed, RunFailed)
      assert.isFalse(failed.again, failed.message)
      assert.include(failed.message, said)
    } finally {
      rmSync(stateDir, { recursive: true, force: true })
    }
  })
})
