/**
 * A page of a resource as a still: its text, pictures and styles in one document. Nothing in it
 * runs or connects to anything. The frame that shows it has no scripts and no forms, and the
 * relay's page forbids every address but its own.
 */
import type { Fetched } from "./Transfer.ts"

/** Most pictures and style sheets of one page. Further ones are left out. */
const MAX_PARTS = 48
/** Elements that would run, connect somewhere, or change the meaning of addresses. */
const REMOVED =
  "script, noscript, iframe, frame, frameset, object, embed, base, meta, template, link:not([rel~=stylesheet])"

export interface Still {
  readonly html: string
  readonly title: string
  /** Frees the browser's memory that the still uses. */
  readonly forget: () => void
}

/**
 * Makes a still of a page. `part` fetches what the page refers to, and returns `null` if that
 * failed.
 */
export const make = async (page: Fetched, part: (url: URL) => Promise<Fetched | null>): Promise<Still> => {
  const text = await textOf(page)
  const parsed = new DOMParser().parseFromString(text, "text/html")
  const base = addressIn(parsed.querySelector("base[href]")?.getAttribute("href"), page.url) ?? page.url
  for (const element of parsed.querySelectorAll(REMOVED)) element.remove()
  for (const link of parsed.querySelectorAll("a[href], area[href]")) {
    const to = addressIn(link.getAttribute("href"), base)
    if (to === null) link.removeAttribute("href")
    else link.setAttribute("href", to.href)
    link.removeAttribute("target")
  }
  for (const element of parsed.querySelectorAll("*")) {
    for (const name of element.getAttributeNames()) if (name.startsWith("on")) element.removeAttribute(name)
  }
  const urls: Array<string> = []
  const parts = [...parsed.querySelectorAll("link, img[src]")].slice(0, MAX_PARTS)
  await Promise.all(parts.map(async (element) => {
    const from = addressIn(element.getAttribute(element.tagName === "IMG" ? "src" : "href"), base)
    const got = from === null ? null : await part(from)
    if (element.tagName === "LINK") {
      const style = parsed.createElement("style")
      style.textContent = got === null ? "" : await textOf(got)
      element.replaceWith(style)
      return
    }
    element.removeAttribute("srcset")
    element.removeAttribute("src")
    if (got === null) return
    const url = URL.createObjectURL(got.body.slice(0, got.body.size, got.type))
    urls.push(url)
    element.setAttribute("src", url)
  }))
  return {
    html: `<!doctype html>${parsed.documentElement.outerHTML}`,
    title: parsed.title,
    forget: () => urls.forEach((url) => URL.revokeObjectURL(url))
  }
}

/** Decodes the body in its own charset, or in UTF-8 if the browser does not know that charset. */
export const textOf = async ({ body, charset }: Fetched): Promise<string> => {
  const bytes = await body.arrayBuffer()
  try {
    return new TextDecoder(charset).decode(bytes)
  } catch {
    return new TextDecoder().decode(bytes)
  }
}

/** Returns the address that `text` means. `null` if it cannot be fetched. */
const addressIn = (text: string | null | undefined, base: URL): URL | null => {
  if (text === null || text === undefined || !URL.canParse(text, base)) return null
  const url = new URL(text, base)
  return url.protocol === "http:" ? url : null
}
