/** Processes that a program under test has started itself. Linux. */
import { readdirSync, readFileSync } from "node:fs"

/** The child whose command line has these words. Throws where there is none. */
export const childOf = (parent: number, words: string): number => {
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const ppid = Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${entry}/status`, "utf8"))?.[1])
      if (ppid === parent && readFileSync(`/proc/${entry}/cmdline`, "utf8").includes(words)) return Number(entry)
    } catch { // it has ended meanwhile
    }
  }
  throw new Error(`process ${parent} has no child ${words}`)
}
