/** Addresses out of what leaves this machine: one rule for logs, spans and reports. */
import * as Candidate from "../../protocol/Candidate.ts"
import * as HostPort from "../config/HostPort.ts"

export type Family = "ipv4" | "ipv6"

const V4 = /(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])/g
const V6 = /(?<![\w:.])(?=[0-9a-f:]*:[0-9a-f:]*:)[0-9a-f:]{2,39}(?![\w:])/gi

/** Puts a word in the place of each address. Loopback and "any" say nothing of anybody, and stay. */
export const addresses = (text: string, word: (family: Family, host: string) => string): string => {
  const hide = (family: Family) => (found: string) => {
    const host = Candidate.canonical(found)
    return host === null || Candidate.isLoopback(host) || HostPort.isUnspecified(host) ? found : word(family, host)
  }
  return text.replace(V4, hide("ipv4")).replace(V6, hide("ipv6"))
}

/** Attributes that name hosts by more than their addresses. */
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

/** What is exported as OTLP, as it leaves: JSON text. */
export const otlp = (body: unknown): string =>
  JSON.stringify(body, (key, value: unknown) => {
    if (typeof value === "string") return addresses(value, (family) => `(${family})`)
    if (key !== "attributes" || !Array.isArray(value)) return value
    return value.filter((one) => !isAttribute(one) || !HOSTS.has(one.key))
  })
