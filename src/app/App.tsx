/** The relay's page for people: it makes this browser a client, with nothing to install. */
import { render } from "preact"
import { useEffect, useMemo, useState } from "preact/hooks"
import type { Connection, Peer, Resource } from "../browser/index.ts"
import { poll } from "../inspector/Poll.ts"
import { bytes, ms } from "../inspector/Text.ts"
import { Keeper, type State } from "./Keeper.ts"
import { Reader } from "./Reader.tsx"

const LOOK_MS = 1000
/** Number of resources from which the page offers a field to narrow the list. */
const MANY_RESOURCES = 12

const App = () => {
  const [state, setState] = useState<State>({ _tag: "Connecting" })
  const keeper = useMemo(() => new Keeper(setState), [])
  useEffect(() => void keeper.start(), [keeper])
  return (
    <>
      <header>
        <h1>Sallyport</h1>
        {state._tag === "Connected"
          ? <p>{state.connection.name} at {state.connection.relay}{BY[state.connection.carrier]}</p>
          : null}
        <p class={state._tag === "Connected" ? "live" : "live off"} role="status">{LIVE[state._tag]}</p>
      </header>
      <main>
        <Main state={state} keeper={keeper} />
      </main>
    </>
  )
}

const LIVE: Readonly<Record<State["_tag"], string>> = {
  Connecting: "connecting",
  Connected: "connected",
  Waiting: "not connected",
  Stopped: "not connected",
  Elsewhere: "connected in another tab"
}

const Main = ({ keeper, state }: { readonly state: State; readonly keeper: Keeper }) => {
  switch (state._tag) {
    case "Connecting":
      return <p class="none">Connecting to the relay…</p>
    case "Waiting":
      return (
        <section>
          <p class="problem" role="alert">{state.problem}</p>
          <p>
            Trying again within {state.seconds + 1} s.{" "}
            <button type="button" onClick={() => void keeper.start()}>Now</button>
          </p>
        </section>
      )
    case "Stopped":
      return <Enrol problem={state.problem} onToken={(token) => void keeper.start(token)} />
    case "Elsewhere":
      return (
        <section>
          <p>Another tab of this browser holds the connection.</p>
          <p>
            <button type="button" onClick={() => void keeper.start(undefined, true)}>Use it here</button>
          </p>
        </section>
      )
    case "Connected":
      return <Connected connection={state.connection} />
  }
}

const Enrol = (
  { onToken, problem }: { readonly problem: string | null; readonly onToken: (token: string) => void }
) => {
  const [token, setToken] = useState("")
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    onToken(token.trim())
  }
  return (
    <section aria-labelledby="enrol-title">
      <h2 id="enrol-title">Become a client</h2>
      {problem === null ? null : <p class="problem" role="alert">{problem}</p>}
      <p>
        An administrator makes you a token:{" "}
        <code>sallyport token create --role client --name YOU</code>. It is good once. This browser then has a key of
        its own, which does not leave it.
      </p>
      <form class="bar" onSubmit={submit}>
        <label>
          <span class="soft">Enrolment token</span>
          <input
            name="token"
            value={token}
            onInput={({ currentTarget }) => setToken(currentTarget.value)}
            autocomplete="off"
            spellcheck={false}
            required
          />
        </label>
        <button>Connect</button>
      </form>
    </section>
  )
}

const Connected = ({ connection }: { readonly connection: Connection }) => {
  const [address, setAddress] = useState("")
  return (
    <>
      <div class="side">
        <Resources connection={connection} onPick={setAddress} />
        <Peers connection={connection} />
      </div>
      <Reader connection={connection} address={address} onAddress={setAddress} />
    </>
  )
}

/**
 * Lists the resources. It asks once, and again at a click, because an administrator may have
 * changed them.
 */
const Resources = (
  { connection, onPick }: { readonly connection: Connection; readonly onPick: (address: string) => void }
) => {
  const [list, setList] = useState<ReadonlyArray<Resource> | null>(null)
  const [problem, setProblem] = useState<string | null>(null)
  const [wanted, setWanted] = useState("")
  const load = () =>
    void connection.resources().then(
      (resources) => {
        setList(resources)
        return setProblem(null)
      },
      (error: unknown) => setProblem(error instanceof Error ? error.message : String(error))
    )
  useEffect(load, [connection])
  const found = list?.filter(({ name, tcp }) => tcp.length > 0 && name.includes(wanted)) ?? []
  return (
    <section aria-labelledby="resources-title">
      <h2 id="resources-title">
        Resources <button type="button" onClick={load}>Look again</button>
      </h2>
      {problem === null ? null : <p class="problem" role="alert">{problem}</p>}
      {(list?.length ?? 0) < MANY_RESOURCES ? null : (
        <label>
          <span class="soft">Name contains</span>
          <input value={wanted} onInput={({ currentTarget }) => setWanted(currentTarget.value)} />
        </label>
      )}
      {list !== null && found.length === 0 ? <p class="none">Nothing that this client may reach over TCP.</p> : null}
      <ul class="resources">
        {found.map(({ name, tcp }) => (
          <li key={name}>
            <b>{name}</b>
            {tcp.map(({ from, to }) => (
              <button
                type="button"
                key={from}
                onClick={() => onPick(urlOf(name, from))}
                title={urlOf(name, from)}
              >
                {from === to ? from : `${from}–${to}`}
              </button>
            ))}
          </li>
        ))}
      </ul>
    </section>
  )
}

const urlOf = (name: string, port: number) => port === 80 ? `http://${name}/` : `http://${name}:${port}/`

/** Shows the path to each connector. It is read each second while the page is visible. */
const Peers = ({ connection }: { readonly connection: Connection }) => {
  const [peers, setPeers] = useState<ReadonlyArray<Peer>>([])
  useEffect(() => {
    const ask = () => connection.peers().then(setPeers, () => undefined)
    return poll({ ask, everyMs: LOOK_MS, isHidden: () => document.hidden })
  }, [connection])
  return (
    <section aria-labelledby="paths-title">
      <h2 id="paths-title">Paths</h2>
      {peers.length === 0 ? <p class="none">None yet; the first request makes one.</p> : null}
      {peers.map((peer) => (
        <article key={peer.connector} aria-label={`Path to ${peer.connector}`}>
          <h3>
            {peer.connector} <span class={isRelayed(peer) ? "chip" : "chip good"}>{pathOf(peer)}</span>
          </h3>
          <dl>
            <Fact name="RTT" value={ms(peer.rttMs)} />
            <Fact name="Flows" value={String(peer.flows)} />
            <Fact name="In" value={bytes(peer.bytesIn)} />
            <Fact name="Out" value={bytes(peer.bytesOut)} />
            <Fact name="Candidates" value={`${peer.local ?? "–"} to ${peer.remote ?? "–"}`} />
          </dl>
        </article>
      ))}
    </section>
  )
}

const Fact = ({ name, value }: { readonly name: string; readonly value: string }) => (
  <div>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
)

const BY = { webtransport: ", by WebTransport", websocket: ", by WebSocket" } as const

const isRelayed = ({ local, remote }: Peer) => local === "relay" || remote === "relay"
const pathOf = (peer: Peer) => peer.local === null ? "connecting" : isRelayed(peer) ? "relayed by TURN" : "direct"

const place = document.getElementById("app")
if (place !== null) render(<App />, place)
