/**
 * Messages of a UPnP Internet Gateway Device: SSDP's search and answer, the device's description,
 * and SOAP calls of WANIPConnection (UPnP Device Architecture 1.1; WANIPConnection:1, section 2.4).
 * Everything that comes from the network is checked here, and nothing throws.
 */
import { DOMParser, type Element } from "@xmldom/xmldom"
import type { SocketAddr } from "../bytes/SocketAddr.ts"

/** Multicast address of SSDP. */
export const SSDP: SocketAddr = { host: "239.255.255.250", port: 1900 }
/** Longest description or answer that is read. A router's has a few KiB. */
export const MAX_BYTES = 64 * 1024
/** Error code: another host has the external port. */
export const CONFLICT = 718
/** Error code: the device knows only leases without an end. */
export const ONLY_PERMANENT = 725

/**
 * SSDP search for gateways. Devices of version 2 answer to version 1, too. With MX 1, they wait for
 * up to a second.
 */
export const SEARCH = [
  "M-SEARCH * HTTP/1.1",
  `HOST: ${SSDP.host}:${SSDP.port}`,
  "MAN: \"ssdp:discover\"",
  "MX: 1",
  "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1",
  "",
  ""
].join("\r\n")

/**
 * Returns the URL of the device's description. `null` if the text is not an answer, or if the URL
 * leads to another host than the sender: an answer must not make this host send requests to a third
 * host.
 */
export const locationOf = (answer: string, from: string): URL | null => {
  if (!/^HTTP\/1\.[01] 200\b/.test(answer)) return null
  const text = /^location:[ \t]*(\S+)[ \t]*$/im.exec(answer)?.[1]
  return text === undefined ? null : urlAt(from, text)
}

/** Service of a device: its type, and the URL for calls to it. */
export type Service = { readonly type: string; readonly control: URL }

/** Returns the service that maps ports. `null` if the description has none. */
export const serviceOf = (description: string, location: URL): Service | null =>
  read(description, (root) => servicesOf(root, location))

const servicesOf = (root: Element, location: URL): Service | null => {
  const base = textOf(root, "URLBase") ?? location.href
  const services = elementsOf(root, "service").flatMap((element) => {
    const type = textOf(element, "serviceType") ?? ""
    const control = urlAt(location.hostname, textOf(element, "controlURL") ?? "", base)
    return MAPPERS.test(type) && control !== null ? [{ type, control }] : []
  })
  return services.find(({ type }) => type.includes("WANIP")) ?? services[0] ?? null
}

const MAPPERS = /^urn:schemas-upnp-org:service:WAN(IP|PPP)Connection:[12]$/

/** Encodes a call. The values must need no escaping: only numbers, addresses and words are sent. */
export const call = (type: string, action: string, values: Readonly<Record<string, string | number>>): string =>
  `<?xml version="1.0"?>\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
  `s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:${action} xmlns:u="${type}">` +
  Object.entries(values).map(([name, value]) => `<${name}>${value}</${name}>`).join("") +
  `</u:${action}></s:Body></s:Envelope>`

/** Answer to a call. `code` is the device's error code. */
export type Answer =
  | { readonly _tag: "Ok"; readonly values: ReadonlyMap<string | null, string> }
  | { readonly _tag: "Refused"; readonly code: number }

/** Returns the answer to `action`. `null` if the text is not one. */
export const answerOf = (text: string, action: string): Answer | null =>
  read(text, (root) => {
    const code = textOf(root, "errorCode")
    if (code !== null) return /^\d{3}$/.test(code) ? { _tag: "Refused", code: Number(code) } : null
    const [response] = elementsOf(root, `${action}Response`)
    if (response === undefined) return null
    const values = new Map(elementsOf(response, "*").map((it) => [it.localName, it.textContent?.trim() ?? ""]))
    return { _tag: "Ok", values }
  })

/**
 * Returns the elements with a local name. Prefixes differ from device to device, and some devices
 * get their namespaces wrong.
 */
const elementsOf = (element: Element, name: string): ReadonlyArray<Element> => [
  ...element.getElementsByTagNameNS("*", name)
]

const textOf = (element: Element, name: string): string | null =>
  elementsOf(element, name)[0]?.textContent?.trim() ?? null

const urlAt = (host: string, text: string, base?: string): URL | null => {
  if (!URL.canParse(text, base)) return null
  const url = new URL(text, base)
  return url.protocol === "http:" && url.hostname === host ? url : null
}

/**
 * Parses XML and passes its root to `use`. `null` if the text is too long or not XML, or if `use`
 * throws: text of a stranger may be nested deeper than the stack.
 */
const read = <A>(text: string, use: (root: Element) => A | null): A | null => {
  if (text.length > MAX_BYTES) return null
  try {
    const root = new DOMParser({ onError: () => {} }).parseFromString(text, "text/xml").documentElement
    return root === null ? null : use(root)
  } catch {
    return null
  }
}
