/**
 * Names as people have them, and the form in which they are compared: lower case, A-labels (RFC 5891) for what is not ASCII, no dot
 * at the end.
 */

/** Of a DNS name, RFC 1035. */
export const MAX_CHARS = 253

/** Letters, digits, "-" and "_" in labels of at most 63; not an IPv4 address or a mistyped one. */
const NAME = /^(?!(?:.*\.)\d+$)[a-z0-9_][a-z0-9_-]{0,62}(?:\.[a-z0-9_][a-z0-9_-]{0,62})*$/
const ONE_NUMBER = /^\d{1,63}$/

/** Whether a name of a node, a network or a resource is in the form in which it is compared. */
export const isNormal = (name: string): boolean =>
  name.length <= MAX_CHARS && (NAME.test(name) || ONE_NUMBER.test(name))

/** The form in which the name is compared. `null` if it is no name. */
export const normalize = (text: string): string | null => {
  const name = toAscii(text)?.toLowerCase().replace(/(?<=[^.])\.$/, "") ?? null
  return name !== null && isNormal(name) ? name : null
}

/** A-labels for a name that is not ASCII. ASCII text is returned as it is, whatever it holds. `null` if IDNA does not permit it. */
export const toAscii = (text: string): string | null => {
  if (/^[\x20-\x7e]*$/.test(text)) return text
  // A URL's host is not only a name: these characters would end it, or be decoded.
  // oxlint-disable-next-line no-control-regex -- control characters are what is refused here
  if (text.length > MAX_CHARS || /[\x00-\x20/?#@:%\\[\]]/.test(text)) return null
  const url = `http://${text}/`
  if (!URL.canParse(url)) return null
  const { hostname } = new URL(url)
  return /^[a-z0-9_.-]+$/.test(hostname) && hostname.includes("xn--") ? hostname : null
}
