/**
 * Platforms for which the QUIC library has a build. Clients and connectors cannot run on any other.
 */
import { Effect, Schema } from "effect"
import { native } from "./Binding.ts"

/**
 * Error when the QUIC library has no build for this system. `message` names the systems that have
 * one.
 */
export class UnsupportedPlatform
  extends Schema.TaggedError<UnsupportedPlatform>()("UnsupportedPlatform", { message: Schema.String })
{}

/** Description of a system, as far as the QUIC library depends on it. */
export interface System {
  /** Operating system, as in `process.platform`; `arch` is as in `process.arch`. */
  readonly platform: string
  readonly arch: string
  /** Version of the C library. `null` if it is not glibc, as on Alpine. */
  readonly glibc: string | null
}

/** Describes the system that this process runs on. */
export const here = (): System => {
  const { header } = process.report.getReport() as { readonly header: { readonly glibcVersionRuntime?: string } }
  return { platform: process.platform, arch: process.arch, glibc: header.glibcVersionRuntime ?? null }
}

/** Whether the package registry has a build. There is one: for Linux on x86-64 with glibc. */
const hasBuild = ({ arch, glibc, platform }: System): boolean =>
  platform === "linux" && arch === "x64" && glibc !== null

/**
 * Fails if the QUIC library cannot be used here. On a system without a published build it tries
 * `load`, because an operator may have built the library.
 */
export const check = (
  system: System = here(),
  load: () => Promise<unknown> = async () => native()
): Effect.Effect<void, UnsupportedPlatform> =>
  hasBuild(system) ? Effect.void : Effect.asVoid(Effect.tryPromise({ try: load, catch: () => unsupported(system) }))

const unsupported = ({ arch, glibc, platform }: System) => {
  const libc = platform === "linux" && glibc === null ? " without glibc" : ""
  return new UnsupportedPlatform({
    message:
      `the QUIC library has no build for ${platform} on ${arch}${libc}; run clients, connectors, and relays with ` +
      "http3: true on Linux on x64 with glibc (not Alpine); a relay without http3 needs no QUIC"
  })
}
