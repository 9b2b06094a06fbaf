// An esbuild plugin. It turns `import { Effect } from "effect"` into `import * as Effect from "effect/Effect"`.
// A bundler keeps every function of a namespace that it meets as an object, and so the whole library, in each thread.
import { readFileSync } from "node:fs"

const BARREL = /^import \{([^}]*)\} from "(effect|@effect\/[a-z-]+)"$/gm
/** The only exports of `effect` that are functions. They come from one module. */
const isFunction = (name) => /^[a-z]/.test(name)

/** The same source, importing modules. Lines and their numbers stay. */
const byModule = (source) =>
  source.replace(BARREL, (whole, list, library) => {
    const lines = whole.split("\n").length
    const imports = list.split(",").map((part) => part.trim()).filter((part) => part !== "").map((part) => {
      if (part.startsWith("type ")) return `import { ${part} } from "${library}"`
      const [name, alias = name] = part.split(/\s+as\s+/)
      return isFunction(name)
        ? `import { ${part} } from "${library}/Function"`
        : `import * as ${alias} from "${library}/${name}"`
    })
    return imports.join("; ") + "\n".repeat(lines - 1)
  })

export const effectImports = {
  name: "effect-imports",
  setup: ({ onLoad }) => {
    onLoad({ filter: /[\\/]src[\\/].*\.tsx?$/ }, ({ path }) =>
      path.includes("node_modules")
        ? undefined
        : { contents: byModule(readFileSync(path, "utf8")), loader: path.endsWith("x") ? "tsx" : "ts" })
  }
}
