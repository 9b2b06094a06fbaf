/**
 * Host names as people write them, and the form in which they are compared: lower case, A-labels
 * (RFC 5891) if not ASCII, no dot at the end.
 */

/** Longest DNS name, in characters (RFC 1035). */
export const MAX_CHARS = 253

/**
 * A name: letters, digits, "-" and "_" in labels of at most 63 characters. An IPv4 address, even a
 * mistyped one, does not match.
 */
const NAME = /^(?!(?:.*\.)\d+$)[a-z0-9_][a-z0-9_-]{0,62}(?:\.[a-z0-9_][a-z0-9_-]{0,62})*$/
const ONE_NUMBER = /^\d{1,63}$/

/** Whether a name of a node, a network or a resource is in the form in which it is compared. */
export const isNormal = (name: string): boolean =>
  name.length <= MAX_CHARS && (NAME.test(name) || ONE_NUMBER.test(name))

/** Returns the form in which a name is compared. `null` if the text is not a name. */
export const normalize = (text: string): string | null => {
  const name = toAscii(text)?.toLowerCase().replace(/(?<=[^.])\.$/, "") ?? null
  return name !== null && isNormal(name) ? name : null
}

/**
 * Whether both texts stand for the same name. Texts that are not names are compared as they are.
 */
export const isSame = (left: string, right: string): boolean =>
  (normalize(left) ?? left) === (normalize(right) ?? right)

/**
 * Returns the name to show to people: `written` if it is another spelling of `normal`, and `normal`
 * otherwise. `written` may come from another machine.
 */
export const shown = (normal: string, written: string | null | undefined): string =>
  written !== null && written !== undefined && normalize(written) === normal ? written : normal

/**
 * Converts a name that is not ASCII to A-labels. ASCII text is returned as it is, whatever it
 * contains. `null` if IDNA does not permit the name.
 */
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
