// Adds to package-lock.json the optional packages of other platforms that npm left out, because the registry in use does not
// serve them: `npm ci` refuses a lock file without them. Run it after `npm install` where that happens; otherwise it does nothing.
import { readFileSync, writeFileSync } from "node:fs"

const OS = ["darwin", "linux", "win32", "android", "freebsd", "openbsd", "netbsd", "sunos", "aix", "openharmony"]
const CPU = ["x64", "arm64", "arm", "ia32", "ppc64", "riscv64", "s390x", "loong64", "mips64el", "wasm32", "universal"]
const FILE = new URL("../package-lock.json", import.meta.url)
const lock = JSON.parse(readFileSync(FILE, "utf8"))
const added = []

for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const known = lock.packages[`node_modules/${name}`] ?? lock.packages[`${path}/node_modules/${name}`]
    if (known !== undefined || !/^\d/.test(version)) continue
    const words = name.split(/[/\-_.]/)
    const os = OS.filter((word) => words.includes(word))
    const cpu = CPU.filter((word) =>
      words.includes(word) || (word === "arm" && words.some((it) => /^arm(eabi|hf|v\d)?/.test(it) && it !== "arm64"))
    )
    const libc = words.includes("musl") || words.includes("musleabihf")
      ? ["musl"]
      : words.some((it) => /^(gnu|glibc|gnueabihf)$/.test(it))
      ? ["glibc"]
      : undefined
    lock.packages[`node_modules/${name}`] = {
      version,
      ...(cpu.length === 0 || cpu.includes("universal") ? {} : { cpu }),
      ...(entry.dev ? { dev: true } : {}),
      optional: true,
      ...(os.length === 0 ? {} : { os }),
      ...(libc === undefined ? {} : { libc })
    }
    added.push(name)
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
writeFileSync(FILE, `${JSON.stringify(lock, null, 2)}\n`)
console.log(added.length === 0 ? "the lock file is complete" : `added ${added.length}: ${added.join(", ")}`)
