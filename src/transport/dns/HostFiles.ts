/** This host's resolver files, read again when they change. */
import { readFileSync, statSync } from "node:fs"
import os from "node:os"
import {
  candidates,
  type Hosts,
  isForSystem,
  parseHosts,
  parseNsswitch,
  parseResolvConf,
  type ResolvConf
} from "../../protocol/flow/ResolverFiles.ts"

export interface Paths {
  readonly resolvConf: string
  readonly hosts: string
  readonly nsswitch: string
}
export const SYSTEM_PATHS: Paths = {
  resolvConf: "/etc/resolv.conf",
  hosts: "/etc/hosts",
  nsswitch: "/etc/nsswitch.conf"
}

/**
 * Shortest time between two checks of the files, in milliseconds. Three calls of `stat` a second
 * cost nothing.
 */
const LOOK_EVERY_MS = 1000
/**
 * Longest file that is read. Longer ones are cut after a line: a list that blocks advertisements
 * may have a million names.
 */
const MAX_BYTES = 4 * 1024 * 1024

/** The parsed resolver files of this host. A file that cannot be read counts as absent. */
export class HostFiles {
  readonly #paths: Paths
  #lookedAt = -Infinity
  #stamps = ""
  #hosts: Hosts = new Map()
  #sources: ReadonlyArray<string> = []
  #conf: ResolvConf = parseResolvConf(null)
  /**
   * Number that grows whenever a file has changed. Cached answers with an older number must be
   * dropped.
   */
  version = 0

  constructor(paths: Paths = SYSTEM_PATHS) {
    this.#paths = paths
  }

  /** Reads the files again if they have changed. `nowMs` is in milliseconds, monotonic. */
  refresh(nowMs: number): void {
    if (nowMs - this.#lookedAt < LOOK_EVERY_MS) return
    this.#lookedAt = nowMs
    const { hosts, nsswitch, resolvConf } = this.#paths
    const stamps = [resolvConf, hosts, nsswitch].map(stampOf).join(" ")
    if (stamps === this.#stamps) return
    this.#stamps = stamps
    this.#conf = parseResolvConf(read(resolvConf))
    this.#hosts = parseHosts(read(hosts))
    this.#sources = parseNsswitch(read(nsswitch))
    this.version += 1
  }

  get conf(): ResolvConf {
    return this.#conf
  }

  get hosts(): Hosts {
    return this.#hosts
  }

  candidates(name: string, absolute: boolean): ReadonlyArray<string> {
    return candidates(this.#conf, name, absolute)
  }

  /**
   * Whether the C library may know this name although DNS does not. On systems other than Linux it
   * always may: macOS, for example, has no `nsswitch.conf` and asks its own services.
   */
  isForSystem(name: string): boolean {
    return process.platform !== "linux" || isForSystem(this.#sources, name, os.hostname().toLowerCase())
  }
}

/** Identifies a file's state. It changes when the file is written, replaced, made or removed. */
const stampOf = (path: string): string => {
  try {
    const { ctimeMs, ino, mtimeMs, size } = statSync(path)
    return `${ino},${size},${mtimeMs},${ctimeMs}`
  } catch {
    return "none"
  }
}

const read = (path: string): string | null => {
  try {
    const text = readFileSync(path)
    const end = text.length <= MAX_BYTES ? text.length : text.lastIndexOf("\n", MAX_BYTES)
    return text.toString("utf8", 0, end)
  } catch {
    return null
  }
}
