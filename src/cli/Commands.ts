/** The command tree: names, options and their help. `Actions.ts` and its neighbours do the work. */
import { Args, Command, HelpDoc, Options, ValidationError } from "@effect/cli"
import { Effect, HashMap, Logger, LogLevel, Option } from "effect"
import { MAX_PORT } from "../services/config/HostPort.ts"
import type { LogFormat } from "./Backend.ts"

const config = Options.text("config").pipe(
  Options.withAlias("c"),
  Options.withPseudoName("FILE"),
  Options.withDescription("The YAML configuration file")
)
const relayConfig = Options.text("config").pipe(
  Options.withAlias("c"),
  Options.withPseudoName("RELAY.yaml"),
  Options.withDescription("The relay's YAML configuration file")
)
const json = Options.boolean("json").pipe(Options.withDescription("Print JSON for programs"))

const invalid = (message: string) => Effect.fail(ValidationError.invalidValue(HelpDoc.p(message)))

/** An option with a fixed set of values. Unlike the library's own, its error names the option. */
const choice = <A extends string>(name: string, values: ReadonlyArray<A>) =>
  Options.text(name).pipe(
    Options.withPseudoName(values.join("|")),
    Options.mapEffect((text) => {
      const known = values.find((value) => value === text)
      return known === undefined
        ? invalid(`--${name} ${text} is unknown; give one of ${values.join(", ")}`)
        : Effect.succeed(known)
    })
  )

/** Loads the code of the actions when a command runs. */
const actions = Effect.promise(() => import("./Actions.ts"))

/** Keeps stdout for the command's answer: logs go to stderr, and only warnings and errors. */
const quietly = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  effect.pipe(
    Logger.withMinimumLogLevel(LogLevel.Warning),
    Effect.provide(Logger.replace(Logger.defaultLogger, Logger.withConsoleError(Logger.logfmtLogger)))
  )

const run = Command.make("run", {
  config,
  logFormat: choice("log-format", ["json", "pretty"]).pipe(
    Options.withDescription("How the log is written. The default is pretty on a terminal and json elsewhere"),
    Options.withDefault<LogFormat>(process.stderr.isTTY ? "pretty" : "json")
  ),
  newIdentity: Options.boolean("new-identity").pipe(
    Options.withDescription(
      "Make a new identity for a relay whose state directory holds none. Nodes of an earlier relay must enrol again"
    )
  )
}, (options) => Effect.flatMap(actions, (actions) => actions.run(options))).pipe(
  Command.withDescription("Run the relay, connector or client that a configuration file describes")
)

const port = (name: string, fallback: number, what: string) =>
  Options.text(name).pipe(
    Options.withPseudoName("PORT"),
    Options.mapEffect((text) =>
      /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= MAX_PORT
        ? Effect.succeed(Number(text))
        : invalid(`--${name} ${text} is no port; give a number from 1 to ${MAX_PORT}`)
    ),
    Options.withDefault(fallback),
    Options.withDescription(`${what} (default ${fallback})`)
  )

const relayInit = Command.make("init", {
  dir: Options.text("dir").pipe(
    Options.withPseudoName("DIR"),
    Options.withDescription("The folder for the configuration file")
  ),
  host: Options.text("host").pipe(
    Options.withPseudoName("HOST"),
    Options.withDescription("The public host name or IP address of the relay")
  ),
  stateDir: Options.text("state-dir").pipe(
    Options.withPseudoName("DIR"),
    Options.optional,
    Options.withDescription(
      "The folder for the keys. The default is state in --dir. The systemd unit needs /var/lib/sallyport"
    )
  ),
  httpsPort: port("https-port", 443, "The TCP port for HTTPS"),
  udpPort: port("udp-port", 3478, "The UDP port for STUN and packets")
}, ({ stateDir, ...options }) =>
  Effect.flatMap(
    actions,
    (actions) => quietly(actions.relayInit({ ...options, stateDir: Option.getOrNull(stateDir) }))
  )).pipe(
    Command.withDescription("Make the keys and a commented configuration file for a new relay. No file is overwritten")
  )
const relay = Command.make("relay").pipe(
  Command.withDescription("Set up a relay"),
  Command.withSubcommands([relayInit])
)

const tokenCreate = Command.make(
  "create",
  {
    config: relayConfig,
    role: choice("role", ["client", "connector", "relay"]).pipe(
      Options.withDescription("The role of the new node. A relay becomes a second relay beside this one")
    ),
    name: Options.text("name").pipe(Options.withDescription("The new node's name")),
    network: Options.text("network").pipe(
      Options.optional,
      Options.withDescription("The network of resources that a connector reaches (default: default)")
    ),
    ttl: Options.text("ttl").pipe(
      Options.withDefault("1h"),
      Options.withDescription("How long the token can be used, such as 30m, 1h or 7d (default 1h)")
    )
  },
  ({ network, ...options }) =>
    Effect.flatMap(
      actions,
      (actions) => quietly(actions.tokenCreate({ ...options, network: Option.getOrNull(network) }))
    )
).pipe(
  Command.withDescription("Print a single-use enrolment token for a new node")
)
const token = Command.make("token").pipe(
  Command.withDescription("Let new nodes enrol"),
  Command.withSubcommands([tokenCreate])
)

const nodeList = Command.make(
  "list",
  { config: relayConfig, json },
  (options) => Effect.flatMap(actions, (actions) => quietly(actions.nodeList(options)))
).pipe(
  Command.withDescription("List the nodes that have enrolled")
)
const nodeRemove = Command.make("remove", {
  config: relayConfig,
  json,
  name: Args.text({ name: "name" }).pipe(Args.withDescription("The node's name"))
}, (options) => Effect.flatMap(actions, (actions) => quietly(actions.nodeRemove(options)))).pipe(
  Command.withDescription("Remove a node permanently. Its flows end, and it must enrol again to come back")
)
const node = Command.make("node").pipe(
  Command.withDescription("List and remove nodes"),
  Command.withSubcommands([nodeList, nodeRemove])
)

const status = Command.make(
  "status",
  { config, json },
  (options) => Effect.flatMap(actions, (actions) => quietly(actions.status(options)))
).pipe(
  Command.withDescription("Show the state of the running process, its peers and the path to each of them")
)

const netcheck = Command.make(
  "netcheck",
  {
    config: Options.optional(config).pipe(
      Options.withDescription("The configuration file of a running node, which then tests with its own relay")
    ),
    relay: Options.text("relay").pipe(
      Options.withPseudoName("HOST:PORT"),
      Options.optional,
      Options.withDescription("The UDP address of a relay or of any STUN server. No node needs to run")
    ),
    json
  },
  ({ config, json, relay }) =>
    Effect.flatMap(
      actions,
      (actions) => quietly(actions.netcheck({ config: Option.getOrNull(config), relay: Option.getOrNull(relay), json }))
    )
).pipe(
  Command.withDescription("Find out how this network treats UDP, and whether direct paths are likely")
)

/** Loads the commands that look into a running process. */
const inspect = Effect.promise(() => import("./commands/Inspect.ts"))

const actorsCommand = Command.make(
  "actors",
  { config, json },
  (options) => Effect.flatMap(inspect, ({ actors }) => quietly(actors(options)))
).pipe(
  Command.withDescription("Show the threads and actors of the running process, with their state, restarts and queues")
)

const path = Command.make("path", {
  config,
  json,
  peer: Args.text({ name: "peer" }).pipe(
    Args.withDescription("The peer's name, as status shows it")
  )
}, (options) => Effect.flatMap(inspect, ({ path }) => quietly(path(options)))).pipe(
  Command.withDescription("Show which paths to a peer were used, when and why")
)

const count = (name: string, most: number, fallback: number, what: string) =>
  Options.integer(name).pipe(
    Options.withPseudoName("N"),
    Options.mapEffect((value) =>
      value >= 1 && value <= most ? Effect.succeed(value) : invalid(`--${name} takes a number from 1 to ${most}`)
    ),
    Options.withDefault(fallback),
    Options.withDescription(`${what} (default ${fallback})`)
  )

const trace = Command.make("trace", {
  config,
  json,
  id: Args.text({ name: "flow" }).pipe(
    Args.optional,
    Args.withDescription("The first digits of a flow's trace id. Leave it out to see the ids of the last flows")
  ),
  last: count("last", 500, 5, "How many of the last flows to show"),
  follow: Options.boolean("follow").pipe(
    Options.withDescription("Show each flow when it ends, until the command is interrupted")
  )
}, ({ id, ...options }) =>
  Effect.flatMap(
    Effect.promise(() => import("./commands/Trace.ts")),
    ({ trace }) => quietly(trace({ ...options, id: Option.getOrNull(id) }))
  )).pipe(
    Command.withDescription("Show what the last flows did, step by step, with times and threads")
  )

const ping = Command.make(
  "ping",
  {
    config,
    json,
    peer: Args.text({ name: "peer" }).pipe(
      Args.withDescription("The peer's name, as status shows it")
    ),
    count: count("count", 1000, 10, "The highest number of pings to send")
  },
  (options) => Effect.flatMap(Effect.promise(() => import("./commands/Ping.ts")), ({ ping }) => quietly(ping(options)))
).pipe(
  Command.withDescription(
    "Measure round trips to a peer until it is reached directly. The command fails if the peer does not answer"
  )
)

const bugreport = Command.make("bugreport", {
  config,
  json,
  out: Options.text("out").pipe(
    Options.withPseudoName("FILE"),
    Options.optional,
    Options.withDescription("The file to write (default: sallyport-bugreport-TIME.json.gz)")
  )
}, ({ out, ...options }) =>
  Effect.flatMap(
    Effect.promise(() => import("./BugReport.ts")),
    ({ bugreport }) => quietly(bugreport({ ...options, out: Option.getOrNull(out) }))
  )).pipe(
    Command.withDescription(
      "Write the state of the running process to one file for a bug report. It contains no keys, tokens or addresses"
    )
  )

const doctor = Command.make(
  "doctor",
  {
    config,
    json,
    node: Options.text("node").pipe(
      Options.withPseudoName("NAME"),
      Options.optional,
      Options.withDescription(
        "Ask this node instead. It needs the relay's configuration file and the node's consent (telemetry: {report: true})"
      )
    )
  },
  ({ node, ...options }) =>
    Effect.flatMap(inspect, ({ doctor }) => quietly(doctor({ ...options, node: Option.getOrNull(node) })))
).pipe(
  Command.withDescription(
    "Say what is wrong with the running process and what to do. The command fails if something is broken"
  )
)

const drain = Command.make(
  "drain",
  {
    config,
    json,
    cancel: Options.boolean("cancel").pipe(Options.withDescription("Take new flows again")),
    noWait: Options.boolean("no-wait").pipe(Options.withDescription("Return at once, while flows are open"))
  },
  (options) =>
    Effect.flatMap(Effect.promise(() => import("./commands/Drain.ts")), ({ drain }) => quietly(drain(options)))
).pipe(
  Command.withDescription(
    "Take a connector out of service: it takes no new flows and keeps the open ones. Waits until no flow is open"
  )
)

const network = Command.make(
  "network",
  {
    config: relayConfig,
    json,
    find: Options.text("find").pipe(
      Options.withDefault(""),
      Options.withDescription(
        "Show only the nodes whose names contain this text. The paths are still those of all nodes"
      )
    )
  },
  (options) =>
    Effect.flatMap(Effect.promise(() => import("./commands/Network.ts")), ({ network }) => quietly(network(options)))
).pipe(
  Command.withDescription(
    "Show what the nodes of a relay report: their versions, their paths and why paths are relayed"
  )
)

const demo = Command.make("demo", {}, () => Effect.flatMap(actions, (actions) => actions.demo)).pipe(
  Command.withDescription("Run a relay, a connector and a client on this machine, and reach a page through them")
)

export const root = Command.make("sallyport").pipe(
  Command.withDescription("Reach private resources without opening an inbound port"),
  Command.withSubcommands([
    run,
    relay,
    token,
    node,
    status,
    ping,
    path,
    trace,
    actorsCommand,
    doctor,
    drain,
    network,
    netcheck,
    bugreport,
    demo
  ])
)

/** Commands that run until a signal ends them. */
const ENDED_BY_SIGNAL: ReadonlySet<string> = new Set(["run", "demo"])

/**
 * Whether the command line `args` names a command that ends only by a signal, so that ending that
 * way is a success. The first command in it counts: a peer may be named `run`, too.
 */
export const endsBySignal = (args: ReadonlyArray<string>): boolean => {
  const names = Command.getSubcommands(root)
  const command = args.find((arg) => HashMap.has(names, arg))
  return command !== undefined && ENDED_BY_SIGNAL.has(command)
}
