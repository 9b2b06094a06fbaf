/**
 * Removes addresses from everything that leaves this machine. Logs, spans and reports follow the
 * same rule.
 */
import * as Candidate from "../../protocol/candidate/Candidate.ts"
import * as HostPort from "../config/HostPort.ts"

/** IP version of an address that was found. */
export type Family = "ipv4" | "ipv6"

const V4 = /(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])/g
const V6 = /(?<![\w:.])(?=[0-9a-f:]*:[0-9a-f:]*:)[0-9a-f:]{2,39}(?![\w:])/gi

/**
 * Replaces each address by a word. Loopback and unspecified addresses stay, because they identify
 * nobody.
 */
export const addresses = (text: string, word: (family: Family, host: string) => string): string => {
  const hide = (family: Family) => (found: string) => {
    const host = Candidate.canonical(found)
    return host === null || Candidate.isLoopback(host) || HostPort.isUnspecified(host) ? found : word(family, host)
  }
  return text.replace(V4, hide("ipv4")).replace(V6, hide("ipv6"))
}

/** Attributes that may contain a host's name. They are removed as a whole. */
export const HOSTS: ReadonlySet<string> = new Set([
  "host",
  "hosts",
  "relay",
  "remote",
  "server.address",
  "client.address",
  "network.peer.address"
])

type KeyValue = { readonly key: string }
const isAttribute = (value: unknown): value is KeyValue =>
  typeof value === "object" && value !== null && "key" in value && "value" in value

/**
 * Encodes OTLP data as JSON, with addresses replaced and the attributes in {@link HOSTS} removed.
 */
export const otlp = (body: unknown): string =>
  JSON.stringify(body, (key, value: unknown) => {
    if (typeof value === "string") return addresses(value, (family) => `(${family})`)
    if (key !== "attributes" || !Array.isArray(value)) return value
    return value.filter((one) => !isAttribute(one) || !HOSTS.has(one.key))
  })
