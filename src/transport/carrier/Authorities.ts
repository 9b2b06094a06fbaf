/** The certificate authorities that a node trusts if its token does not pin the relay's key. */
import { readFileSync } from "node:fs"
import * as tls from "node:tls"

/**
 * Returns the authorities that Node trusts, as PEM. An unreadable `NODE_EXTRA_CA_CERTS` is ignored,
 * as Node does.
 */
export const usual = (): Array<string> => {
  const more = process.env["NODE_EXTRA_CA_CERTS"]
  try {
    return [...tls.rootCertificates, ...(more === undefined ? [] : [readFileSync(more, "utf8")])]
  } catch {
    return [...tls.rootCertificates]
  }
}

/**
 * Returns the authorities that Node trusts and those in a PEM file. Throws if the file cannot be
 * read.
 */
export const withFile = (ca: string): Array<string> => [...usual(), readFileSync(ca, "utf8")]
