/**
 * The inspector's page. It polls each second while it is visible, and receives events as they
 * happen.
 */
import { render } from "preact"
import { useEffect, useState } from "preact/hooks"
import { type Actor, type Entry, type PathEntry, type Peer, type Status, type Thread, type Trace } from "./Api.ts"
import { Network, type NetworkAnswer } from "./Network.tsx"
import { Plot, type Sample } from "./Plot.tsx"
import { usePolled } from "./Polled.ts"
import { bytes, clock, ms, words } from "./Text.ts"
import { Traces } from "./Waterfall.tsx"

/** How often the network is polled. Nodes report twice a minute, and a moment after a change. */
const NETWORK_EVERY_MS = 3000
/** Most samples that are kept: five minutes. Older ones are dropped. */
const MAX_SAMPLES = 300
/**
 * Most entries that are kept, which is as many as the recorder keeps of both kinds. Older ones are
 * dropped.
 */
const MAX_ENTRIES = 1024
const EVENTS_SHOWN = 100
/** Nodes that are shown at first. */
const NODES_SHOWN = 24
/** Most nodes that are shown, which is as many as the relay returns at once. */
const MAX_NODES = 200
const TRACES_SHOWN = 20

/** The recorder's entries, oldest first: the earlier ones, then each as it happens. */
const useEvents = (): { readonly entries: ReadonlyArray<Entry>; readonly live: boolean } => {
  const [entries, setEntries] = useState<ReadonlyArray<Entry>>([])
  const [live, setLive] = useState(false)
  useEffect(() => {
    const source = new EventSource("/v1/events")
    // The server sends everything that it keeps at the start of each connection.
    source.addEventListener("open", () => {
      setEntries([])
      setLive(true)
    })
    source.addEventListener("error", () => setLive(false))
    source.addEventListener(
      "message",
      ({ data }) => setEntries((before) => [...before, JSON.parse(String(data)) as Entry].slice(-MAX_ENTRIES))
    )
    return () => source.close()
  }, [])
  return { entries, live }
}

const App = () => {
  const [samples, setSamples] = useState<Readonly<Record<string, ReadonlyArray<Sample>>>>({})
  const status = usePolled<Status>(
    "/v1/status",
    ({ peers }) =>
      setSamples((before) =>
        Object.fromEntries(peers.map(({ name, rttMs }) => [
          name,
          [...(before[name] ?? []), { at: Date.now(), value: rttMs }].slice(-MAX_SAMPLES)
        ]))
      )
  )
  const threads = usePolled<ReadonlyArray<Thread>>("/v1/actors")
  const traces = usePolled<{ readonly traces: ReadonlyArray<Trace> }>(`/v1/traces?last=${TRACES_SHOWN}`)
  const { entries, live } = useEvents()
  const paths = entries.filter((entry) => entry._tag === "Path")
  const peers = status.value?.peers ?? []
  const relay = status.value?.nodes !== undefined
  return (
    <>
      <header>
        <h1>Sallyport</h1>
        <nav aria-label="Sections">
          {relay ? <a href="#network">Network</a> : <a href="#peers">Peers</a>}
          <a href="#actors">Actors</a>
          <a href="#flows">Flows</a>
          <a href="#events">Events</a>
        </nav>
        <p class={live ? "live" : "live off"} role="status">{live ? "live" : "not connected"}</p>
      </header>
      <main>
        {relay ? <NetworkSection /> : (
          <Section id="peers" title="Peers" problem={status.problem}>
            {status.value === null ? <p class="none">Asking …</p> : peers.length === 0
              ? <p class="none">No peers now.</p>
              : peers.map((peer) => (
                <PeerCard
                  key={peer.name}
                  peer={peer}
                  samples={samples[peer.name] ?? []}
                  paths={paths.filter((path) => path.peer === peer.name)}
                />
              ))}
          </Section>
        )}
        <Section id="actors" title="Threads and actors" problem={threads.problem}>
          <ActorTree threads={threads.value ?? []} />
        </Section>
        <Section id="flows" title="Flows and their traces" problem={traces.problem}>
          <Traces traces={traces.value?.traces ?? []} />
        </Section>
        <Section id="events" title="Events" problem={null}>
          <div class="events" role="log" tabIndex={0} aria-label="Events, the newest first">
            <ol>
              {entries.slice(-EVENTS_SHOWN).toReversed().map((entry) => (
                <Event key={`${entry.at} ${textOf(entry)}`} entry={entry} />
              ))}
            </ol>
          </div>
        </Section>
      </main>
    </>
  )
}

const NetworkSection = () => {
  const [{ find, limit }, setWanted] = useState({ find: "", limit: NODES_SHOWN })
  const query = new URLSearchParams({ find, limit: String(limit) })
  const { problem, value } = usePolled<NetworkAnswer>(`/v1/network?${query.toString()}`, undefined, NETWORK_EVERY_MS)
  return (
    <Section id="network" title="Network" problem={problem}>
      {value === null ? null : (
        <Network
          {...value}
          find={find}
          onFind={(find) => setWanted({ find, limit: NODES_SHOWN })}
          onMore={limit < MAX_NODES ? () => setWanted({ find, limit: MAX_NODES }) : null}
        />
      )}
    </Section>
  )
}

const Section = ({ children, id, problem, title }: {
  readonly id: string
  readonly title: string
  readonly problem: string | null
  readonly children: preact.ComponentChildren
}) => (
  <section id={id} aria-labelledby={`${id}-title`}>
    <h2 id={`${id}-title`}>{title}</h2>
    {problem === null ? null : <p class="problem">{problem}</p>}
    {children}
  </section>
)

const PeerCard = ({ paths, peer, samples }: {
  readonly peer: Peer
  readonly samples: ReadonlyArray<Sample>
  readonly paths: ReadonlyArray<PathEntry>
}) => (
  <article class="peer">
    <h3>
      {peer.name} <span class={peer.path === "direct" ? "chip good" : "chip"}>{peer.path ?? "no path"}</span>
    </h3>
    <p class="why">{words(peer.reason)}</p>
    <dl>
      <div>
        <dt>RTT</dt>
        <dd>{ms(peer.rttMs)}</dd>
      </div>
      <div>
        <dt>Flows</dt>
        <dd>{peer.flows}</dd>
      </div>
      <div>
        <dt>In</dt>
        <dd>{bytes(peer.bytesIn)}</dd>
      </div>
      <div>
        <dt>Out</dt>
        <dd>{bytes(peer.bytesOut)}</dd>
      </div>
    </dl>
    <Plot label={`Round trip to ${peer.name}`} samples={samples} unit="ms" />
    <h4>Path timeline</h4>
    <ol class="timeline">
      {paths.slice(-8).map((path) => (
        <li key={`${path.at} ${path.reason}`} class={path.path === "relay" ? "" : "good"}>
          <time>{clock(path.at)}</time> <b>{path.path}</b> {path.moved ? "" : "stays: "}
          {words(path.reason)}
        </li>
      ))}
    </ol>
  </article>
)

const ActorTree = ({ threads }: { readonly threads: ReadonlyArray<Thread> }) => (
  <ul class="tree">
    {threads.map((thread) => (
      <li key={thread.name}>
        <ActorRow
          actor={thread}
          extra={thread.health === null
            ? ""
            : `loop ${thread.health.loopDelayP99Ms.toFixed(1)} ms, ${bytes(thread.health.heapUsedBytes)}`}
        />
        <ul>
          {thread.actors.map((actor) => (
            <li key={actor.name}>
              <ActorRow actor={actor} extra="" />
            </li>
          ))}
        </ul>
      </li>
    ))}
  </ul>
)

const ActorRow = ({ actor, extra }: { readonly actor: Actor; readonly extra: string }) => (
  <div class="actor">
    <span class="name">{actor.name}</span>
    <span class={actor.state === "up" ? "chip good" : "chip bad"}>{actor.state}</span>
    <span class="num">{actor.restarts} {actor.restarts === 1 ? "restart" : "restarts"}</span>
    <span class="soft">
      {extra}
      {(actor.queues ?? []).map(({ capacity, depth, name }) => (
        <span class="queue" key={name}>
          {name} <meter min={0} max={capacity} value={depth} aria-label={`${name} mailbox`} /> {depth}/{capacity}
        </span>
      ))}
    </span>
    {actor.lastError === null ? null : <span class="problem">{actor.lastError.split("\n")[0]}</span>}
  </div>
)

const textOf = (entry: Entry): string =>
  entry._tag === "Path"
    ? `${entry.peer}: ${entry.path}${entry.moved ? "" : " stays"}, ${words(entry.reason)}`
    : `${entry.kind} ${entry.name}: ${entry.state}${entry.message === null ? "" : `, ${entry.message}`}`

const Event = ({ entry }: { readonly entry: Entry }) => (
  <li>
    <time>{clock(entry.at)}</time> {textOf(entry)}
  </li>
)

const place = document.getElementById("app")
if (place !== null) render(<App />, place)
