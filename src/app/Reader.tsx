/** Fetches a page or a file from a resource, and shows it. */
import { useEffect, useRef, useState } from "preact/hooks"
import type { Connection, OpenFailed } from "../browser/index.ts"
import { bytes, words } from "../inspector/Text.ts"
import * as StillPage from "./StillPage.ts"
import * as Transfer from "./Transfer.ts"

/** Largest answer that is shown in the page, in bytes. A larger one must be downloaded. */
const MAX_SHOWN_BYTES = 16 * 1024 * 1024
/** Longest text that is shown, in characters. The rest is left out. */
const MAX_TEXT_CHARS = 1024 * 1024

type View =
  | { readonly _tag: "Page"; readonly still: StillPage.Still }
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "Picture"; readonly url: string }
  | { readonly _tag: "File" }

interface Shown {
  readonly fetched: Transfer.Fetched
  readonly view: View
}

const isText = (type: string) => /^text\/|[/+](json|xml|yaml|javascript)$/.test(type)

const viewOf = async (connection: Connection, fetched: Transfer.Fetched, signal: AbortSignal): Promise<View> => {
  const { body, type } = fetched
  if (type === "text/html") {
    const part = (url: URL) => Transfer.load(connection, url, { signal, maxBytes: MAX_SHOWN_BYTES }).catch(() => null)
    return { _tag: "Page", still: await StillPage.make(fetched, part) }
  }
  if (isText(type)) return { _tag: "Text", text: (await StillPage.textOf(fetched)).slice(0, MAX_TEXT_CHARS) }
  if (type.startsWith("image/")) return { _tag: "Picture", url: URL.createObjectURL(body.slice(0, body.size, type)) }
  return { _tag: "File" }
}

const problemOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as Partial<OpenFailed>
  return typeof code === "string" ? `${words(code)}: ${error.message}` : error.message
}

const forget = (view: View | undefined) => {
  if (view?._tag === "Page") view.still.forget()
  else if (view?._tag === "Picture") URL.revokeObjectURL(view.url)
}

export interface Props {
  readonly connection: Connection
  readonly address: string
  readonly onAddress: (address: string) => void
}

export const Reader = ({ address, connection, onAddress }: Props) => {
  const [shown, setShown] = useState<Shown | null>(null)
  const [progress, setProgress] = useState<Transfer.Progress | null>(null)
  const [problem, setProblem] = useState<string | null>(null)
  const under = useRef<AbortController | null>(null)
  useEffect(() => () => under.current?.abort(), [connection])
  useEffect(() => () => forget(shown?.view), [shown])

  const go = async (text: string, isDownload: boolean) => {
    under.current?.abort()
    const { signal } = under.current = new AbortController()
    const isLatest = () => !signal.aborted
    setProblem(null)
    setProgress({ bytes: 0, total: null })
    try {
      const url = new URL(/^[a-z]+:\/\//i.test(text) ? text : `http://${text}`)
      const onProgress = (now: Transfer.Progress) => isLatest() && setProgress(now)
      const maxBytes = isDownload ? Infinity : MAX_SHOWN_BYTES
      const fetched = await Transfer.load(connection, url, { signal, onProgress, maxBytes })
      const view: View = isDownload ? { _tag: "File" } : await viewOf(connection, fetched, signal)
      if (!isLatest()) return forget(view)
      if (isDownload) Transfer.save(fetched)
      else onAddress(fetched.url.href)
      setShown({ fetched, view })
    } catch (error) {
      if (!isLatest()) return
      setShown(null)
      setProblem(problemOf(error))
    }
    if (isLatest()) setProgress(null)
  }
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    const isDownload = event.submitter instanceof HTMLButtonElement && event.submitter.value === "download"
    void go(address.trim(), isDownload)
  }
  return (
    <section id="reader" aria-labelledby="reader-title">
      <h2 id="reader-title">Read or download</h2>
      <form class="bar" onSubmit={submit}>
        <label>
          <span class="soft">Address</span>
          <input
            name="address"
            value={address}
            onInput={({ currentTarget }) => onAddress(currentTarget.value)}
            placeholder="http://intranet/"
            autocomplete="off"
            spellcheck={false}
            required
          />
        </label>
        <button value="open">Open</button>
        <button value="download">Download</button>
      </form>
      {problem === null ? null : <p class="problem" role="alert">{problem}</p>}
      {progress === null ? null : (
        <p class="progress" role="status">
          <progress max={progress.total ?? undefined} value={progress.total === null ? undefined : progress.bytes} />
          {bytes(progress.bytes)}
          {progress.total === null ? "" : ` of ${bytes(progress.total)}`}
          <button
            type="button"
            onClick={() => {
              under.current?.abort()
              setProgress(null)
            }}
          >
            Cancel
          </button>
        </p>
      )}
      {shown === null ? null : <Answer {...shown} onFollow={(url) => void go(url, false)} />}
    </section>
  )
}

const Answer = ({ fetched, onFollow, view }: Shown & { readonly onFollow: (url: string) => void }) => (
  <article aria-label={`Answer of ${fetched.url.host}`}>
    <p class="soft answer">
      <b class={fetched.status.startsWith("2") ? "chip good" : "chip bad"}>{fetched.status}</b> {fetched.type}{" "}
      {bytes(fetched.body.size)} in {Math.round(fetched.ms)} ms{rate(fetched)}
    </p>
    <Body view={view} fetched={fetched} onFollow={onFollow} />
  </article>
)

const rate = ({ body, ms }: Transfer.Fetched) =>
  body.size < 1024 * 1024 ? "" : `, ${Math.round(body.size * 8 / ms / 1000)} Mbit/s`

const Body = ({ fetched, onFollow, view }: Shown & { readonly onFollow: (url: string) => void }) => {
  switch (view._tag) {
    case "Page":
      return <Frame still={view.still} onFollow={onFollow} />
    case "Text":
      return <pre tabIndex={0}>{view.text}</pre>
    case "Picture":
      return <img class="picture" src={view.url} alt={fetched.url.pathname} />
    case "File":
      return (
        <p>
          {fetched.url.pathname} is a file.{" "}
          <button type="button" onClick={() => Transfer.save(fetched)}>Save it</button>
        </p>
      )
  }
}

/**
 * Shows a still page in a frame. The frame has the same origin, so that a link in it can be
 * followed here, and no scripts, so that nothing in it can make use of that.
 */
const Frame = ({ onFollow, still }: { readonly still: StillPage.Still; readonly onFollow: (url: string) => void }) => {
  const follow = (event: MouseEvent) => {
    const target = event.target as Element | null
    const href = target?.closest("a[href], area[href]")?.getAttribute("href")
    if (href === undefined || href === null) return
    event.preventDefault()
    onFollow(href)
  }
  return (
    <iframe
      title={still.title === "" ? "The page" : still.title}
      sandbox="allow-same-origin"
      referrerpolicy="no-referrer"
      srcdoc={still.html}
      onLoad={({ currentTarget }) => currentTarget.contentDocument?.addEventListener("click", follow)}
    />
  )
}
