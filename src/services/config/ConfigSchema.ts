/**
 * Schemas of every key in the configuration files. Relative paths, and defaults that depend on
 * other keys, are settled in `Config`.
 */
import { Either, ParseResult, Redacted, Schema } from "effect"
import { isIP } from "node:net"
import * as HostName from "../../protocol/bytes/HostName.ts"
import * as IpBlock from "../../protocol/bytes/IpBlock.ts"
import { renderHostPort } from "../../protocol/bytes/SocketAddr.ts"
import * as ProxyUrl from "../../protocol/relay/ProxyUrl.ts"
import { PortRange } from "../../protocol/trust/Documents.ts"
import { NORMAL } from "../../protocol/trust/Lifetimes.ts"
import * as Hint from "./Hint.ts"
import * as HostPort from "./HostPort.ts"

/** Rule for the names of nodes, networks and resources, as messages state it. */
export const NAME_RULE = "letters, digits, -, _ and dots between them, such as office-1, db_1 or web.corp"

/** Schema of a name, kept as it was written. Compare names by `HostName.normalize`. */
const nameOf = (what: string, example: string) =>
  Schema.String.pipe(
    Schema.filter((text, _, ast) =>
      HostName.normalize(text) !== null || new ParseResult.Type(ast, text, "which is no name")
    ),
    Schema.annotations(Hint.make(`a ${what}: ${NAME_RULE}`, `write for example ${example}`))
  )

/**
 * A name that is compared and not shown. It is accepted in any case and stored as
 * `HostName.normalize` returns it, except the words in `others`.
 */
const comparedName = (what: string, example: string, others: ReadonlyArray<string> = []) =>
  Schema.transformOrFail(Schema.String, Schema.String, {
    strict: true,
    decode: (text, _, ast) => {
      const normal = others.includes(text) ? text : HostName.normalize(text)
      return normal === null
        ? Either.left(new ParseResult.Type(ast, text, "which is no name"))
        : Either.right(normal)
    },
    encode: Either.right
  }).pipe(Schema.annotations(Hint.make(what, `write for example ${example}`)))

/** A listening address. `noun` names the service that listens, and `example` is a complete line. */
const address = (noun: string, example: string) =>
  Schema.transformOrFail(Schema.String, Schema.Struct({ host: Schema.String, port: Schema.Int }), {
    strict: true,
    decode: (text, _, ast) =>
      Either.mapLeft(HostPort.parse(text), (problem) => new ParseResult.Type(ast, text, problem)),
    encode: (address) => Either.right(renderHostPort(address))
  }).pipe(
    Schema.annotations(Hint.make(`the address where ${noun} listens, as "host:port"`, `write for example ${example}`))
  )

const port = (what: string, example: string, from = 1) =>
  Schema.Int.pipe(
    Schema.between(from, HostPort.MAX_PORT),
    Schema.annotations(
      Hint.make(`${what}: a whole number from ${from} to ${HostPort.MAX_PORT}`, `write for example ${example}`)
    )
  )

const path = (what: string, example: string) =>
  Schema.String.pipe(
    Schema.filter((text) => text !== "" && !/[\n\0]/.test(text)),
    Schema.annotations(Hint.make(`the path of ${what}`, `write for example ${example}`))
  )

/** A host. Names that are not ASCII are stored as A-labels. */
const host = (expected: string, remedy: string, problemOf = HostPort.hostProblem) =>
  Schema.transformOrFail(Schema.String, Schema.String, {
    strict: true,
    decode: (text, _, ast) => {
      const ascii = HostName.toAscii(text)
      const problem = ascii === null ? "which is neither a name nor an IP address" : problemOf(ascii)
      return ascii === null || problem !== null
        ? Either.left(new ParseResult.Type(ast, text, problem ?? ""))
        : Either.right(ascii)
    },
    encode: Either.right
  }).pipe(Schema.annotations(Hint.make(expected, remedy)))

const list = <A, I>(item: Schema.Schema<A, I>, of: string, example: string) =>
  Schema.Array(item).annotations(Hint.make(`a list of ${of}`, `write for example ${example}`))

/** An optional key without a default. */
const maybe = <A, I>(schema: Schema.Schema<A, I>) => Schema.optionalWith(schema, { exact: true })

/** An optional key with a default value. */
const orElse = <A, I>(schema: Schema.Schema<A, I>, fallback: A) =>
  Schema.optionalWith(schema, { exact: true, default: () => fallback })

const choice = <const A extends ReadonlyArray<string>>(example: string, ...values: A) =>
  Schema.Literal(...values).annotations(Hint.make(`one of ${values.join(", ")}`, `write for example ${example}`))

const flag = (example: string) => Schema.Boolean.annotations(Hint.make("true or false", `write for example ${example}`))

const secretText = Schema.String.pipe(
  Schema.filter((text) => text.trim() !== ""),
  Schema.transform(Schema.RedactedFromSelf(Schema.String), {
    strict: true,
    decode: (text) => Redacted.make(text),
    encode: Redacted.value
  })
)

/** Source of the enrolment token. It is needed only until the node has enrolled. */
const Token = Schema.Union(
  secretText,
  Schema.RedactedFromSelf(Schema.String),
  Schema.Struct({ file: path("a token file", "token: {file: token.txt}") }),
  Schema.Struct({
    env: Schema.String.pipe(
      Schema.filter((text) => /^[A-Za-z_]\w*$/.test(text)),
      Schema.annotations(
        Hint.make("the name of an environment variable", "write for example token: {env: SALLYPORT_TOKEN}")
      )
    )
  })
).annotations(Hint.make(
  "the token's text, {file: PATH} or {env: NAME}",
  "write for example token: {file: token.txt}, with what `sallyport token create` printed in that file",
  { secret: true }
))

/** A proxy's URL, or `none`. It is redacted because it may contain a login. */
const Proxy = Schema.transformOrFail(Schema.String, Schema.RedactedFromSelf(Schema.String), {
  strict: true,
  decode: (text, _, ast) =>
    text === "none" ? Either.right(Redacted.make(text)) : Either.mapBoth(ProxyUrl.parse(text), {
      onLeft: (problem) => new ParseResult.Type(ast, text, `which ${problem}`),
      onRight: () => Redacted.make(text)
    }),
  encode: (text) => Either.right(Redacted.value(text))
}).pipe(
  Schema.annotations(Hint.make(
    "the URL of an HTTP, HTTPS or SOCKS 5 proxy, or none",
    "write for example proxy: \"http://proxy.example.com:3128\"",
    { secret: true }
  ))
)

/**
 * Path of a PEM file with certificate authorities that are trusted in addition to the public ones.
 * It is needed if the relay's certificate is from an authority of the operator's own.
 */
const Ca = path("a PEM file with certificates of authorities", "ca: company-ca.pem")

/**
 * Address of the admin API: `host:port`, `unix:PATH`, or a mapping. If omitted, a Unix socket in
 * `stateDir`. The API asks for no password.
 */
const Admin = Schema.Union(
  Schema.String.pipe(
    Schema.filter((text) => text.startsWith("unix:") ? text.length > 5 : Either.isRight(HostPort.parse(text)))
  ),
  Schema.Struct({
    /** Address where the admin API listens, as `host:port`. */
    listen: address("the admin API", "listen: \"127.0.0.1:9301\""),
    /** Whether `listen` may be an address that other machines reach. Default: `false`. */
    allowRemote: orElse(flag("allowRemote: true"), false),
    /**
     * Host names that clients may use in requests, such as a container's. Other names are refused,
     * because anybody's DNS could point a name here (DNS rebinding). IP addresses, `localhost`, and
     * requests for metrics and health are always accepted.
     */
    allowHosts: orElse(
      list(
        host("a host name, without scheme and port", "write for example allowHosts: [connector]"),
        "host names",
        "allowHosts: [connector]"
      ),
      []
    )
  })
).annotations(Hint.make(
  "\"host:port\", \"unix:PATH\" or {listen: \"host:port\", allowRemote: true}",
  "write for example admin: \"127.0.0.1:9301\", or leave the key out for a socket in stateDir"
))

/** The actors that can be placed on a thread, by the kind of process. */
export const ACTORS = {
  node: ["signaling", "stun", "pathProber", "relay", "streamMux"],
  relay: ["signalingHub", "relayForwarder"],
  forwarder: ["relayMember", "relayForwarder"]
} as const

const actorName = Schema.String.annotations(
  Hint.make("the name of an actor", "write for example control: [signaling, stun]")
)

/**
 * Threads of the actors: `default`, `isolated` (one thread for each actor), or a mapping from a
 * thread's name to its actors.
 */
const Placement = Schema.Union(
  Schema.Literal("default", "isolated"),
  Schema.Record({ key: Schema.String, value: list(actorName, "actors", "control: [signaling, stun]") })
).annotations(Hint.make(
  "default, isolated, or a mapping from thread names to lists of actors",
  "write for example placement: default, or leave the key out"
))

/** Number of threads for the data plane. This version supports only 1. */
const DataThreads = Schema.Int.pipe(
  Schema.between(1, 64),
  Schema.annotations(Hint.make("a whole number from 1 to 64", "write dataThreads: 1, or leave the key out")),
  Schema.filter((count) => count === 1),
  Schema.annotations(Hint.make(
    "1, since this version runs its data plane on one thread",
    "write dataThreads: 1, or leave the key out"
  ))
)

const telemetry = {
  /**
   * URL of an OTLP collector (HTTP) for traces, logs and metrics. If omitted, nothing is exported.
   */
  otlp: maybe(Schema.String.pipe(
    Schema.filter((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)),
    Schema.annotations(Hint.make("an http or https URL", "write for example otlp: http://127.0.0.1:4318"))
  )),
  /** Share of the flows that are traced, from 0 to 1. Default: 1. */
  sample: orElse(
    Schema.Number.pipe(
      Schema.between(0, 1),
      Schema.annotations(Hint.make("a share from 0 to 1", "write for example sample: 0.01"))
    ),
    1
  )
}
const Telemetry = Schema.Struct(telemetry).annotations(
  Hint.make("a mapping with otlp and sample", "write for example telemetry: {otlp: \"http://127.0.0.1:4318\"}")
)
const NodeTelemetry = Schema.Struct({
  ...telemetry,
  /**
   * Whether this node sends reports to the relay and lets the relay run `doctor` here. Default:
   * `false`, because the operator must agree first. Reports contain no address and no resource.
   */
  report: orElse(flag("report: true"), false)
}).annotations(
  Hint.make("a mapping with otlp, sample and report", "write for example telemetry: {otlp: \"http://127.0.0.1:4318\"}")
)

const common = {
  /**
   * Name of this process. It may contain letters, digits, `-`, `_` and dots. Case does not count.
   */
  name: nameOf("name", "name: office-1"),
  /**
   * Folder for the keys and state of this process, created with mode 0700. No other process may use
   * it at the same time.
   */
  stateDir: path("a folder for keys and state", "stateDir: /var/lib/sallyport"),
  /**
   * Address of the admin API: `host:port`, `unix:PATH`, or a mapping. If omitted, a Unix socket in
   * `stateDir`.
   */
  admin: maybe(Admin),
  /**
   * Threads of the actors: `default`, `isolated` (one thread for each actor), or a mapping from a
   * thread's name to its actors. Default: `default`.
   */
  placement: orElse(Placement, "default"),
  /** Number of threads for the data plane. Default: 1, which is all that this version supports. */
  dataThreads: orElse(DataThreads, 1),
  /** Export of traces, logs and metrics. If omitted, nothing is exported. */
  telemetry: orElse(Telemetry, { sample: 1 }),
  /** Least severe level that is logged. Default: `info`. */
  logLevel: orElse(choice("logLevel: info", "trace", "debug", "info", "warn", "error"), "info")
}

/** Parses "80" or "8000-8100". A failure says what is wrong, in words that follow "found ...". */
const portRange = (text: string): Either.Either<typeof PortRange.Type, string> => {
  const parts = /^\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?$/.exec(text)
  if (parts === null) return Either.left("which is no port")
  const from = Number(parts[1])
  const to = Number(parts[2] ?? parts[1])
  if (from < 1 || to > HostPort.MAX_PORT) return Either.left(`which is outside 1 to ${HostPort.MAX_PORT}`)
  return from > to ? Either.left("whose first port is above its last") : Either.right({ from, to })
}

const Ports = list(
  Schema.transformOrFail(Schema.Union(Schema.Number, Schema.String), PortRange, {
    strict: true,
    decode: (found, _, ast) =>
      Either.mapLeft(portRange(String(found)), (problem) => new ParseResult.Type(ast, found, problem)),
    encode: ({ from, to }) => Either.right(from === to ? from : `${from}-${to}`)
  }).pipe(
    Schema.annotations(
      Hint.make("a port such as 80 or a range such as \"8000-8100\"", "write for example tcp: [80, \"8000-8100\"]")
    )
  ),
  "ports and ranges",
  "tcp: [80, \"8000-8100\"]"
)

const Resource = Schema.Struct({
  /** Name by which clients and access rules refer to the resource. */
  name: nameOf("resource name", "name: intranet"),
  /** Name of the group of connectors that can reach the resource. Default: `default`. */
  network: orElse(comparedName(`a network name: ${NAME_RULE}`, "network: office"), "default"),
  /**
   * Address of the resource: a host name, an IP address, a CIDR block or `*.NAME`. The connector
   * resolves names.
   */
  address: host(
    "a host name, an IP address, a CIDR or *.NAME, without scheme or port",
    "write for example address: intranet.local",
    HostPort.targetProblem
  ),
  /** Permitted TCP ports: numbers such as 80, or ranges such as `"8000-8100"`. Default: none. */
  tcp: orElse(Ports, []),
  /**
   * Permitted UDP ports, written as for `tcp`. This version carries only TCP flows. Default: none.
   */
  udp: orElse(Ports, []),
  /**
   * Whether the address may resolve to the connector's own loopback addresses. Default: `false`.
   */
  allowLoopback: orElse(flag("allowLoopback: true"), false)
}).annotations(
  Hint.make(
    "a mapping with name, address and ports",
    "write for example {name: intranet, address: 10.0.0.5, tcp: [80]}"
  )
)

const nameOrAll = (what: string, example: string) =>
  comparedName(`the name of a ${what}, or "*" for all`, example, ["*"])

const Rule = Schema.Struct({
  /** Names of the clients that may reach the resources. `"*"` stands for all clients. */
  clients: list(nameOrAll("client", "clients: [alice]"), "client names", "clients: [alice]"),
  /** Names of the resources that the clients may reach. `"*"` stands for all resources. */
  resources: list(nameOrAll("resource", "resources: [intranet]"), "resource names", "resources: [intranet]")
}).annotations(
  Hint.make("a mapping with clients and resources", "write for example {clients: [alice], resources: [intranet]}")
)

const listenUdp = {
  /** Address where the relay listens for STUN and relayed packets over UDP, as `host:port`. */
  udp: address("UDP", "udp: \"0.0.0.0:3478\""),
  /**
   * Second address and port for STUN, as `host:port`. Nodes need it to find out how their NATs
   * behave (RFC 5780). If omitted, the port after that of `udp` is used, if it is free.
   */
  stunAlternate: maybe(address("STUN at a second address and port", "stunAlternate: \"0.0.0.0:3479\""))
}
const advertised = {
  /** Public host name or IP address of the relay. */
  host: host("the public host name or IP address of this relay", "write for example host: relay.example.com"),
  /** Public UDP port. If omitted, the port of `listen.udp`. */
  udp: maybe(port("the public UDP port", "udp: 3478"))
}
const advertiseHint = Hint.make("a mapping with host", "write for example advertise: {host: relay.example.com}")

const count = (what: string, example: string) =>
  Schema.Int.pipe(
    Schema.between(1, 1_000_000),
    Schema.annotations(Hint.make(`${what}: a whole number from 1 to 1000000`, `write for example ${example}`))
  )

const TurnQuotas = Schema.Struct({
  /** Most TURN allocations in total. Default: 1000. */
  total: orElse(count("allocations in all", "total: 1000"), 1000),
  /** Most TURN allocations of one node. Default: 16. */
  perUser: orElse(count("allocations of one node", "perUser: 16"), 16),
  /** Most TURN allocations of one client address. Default: 128. */
  perAddress: orElse(count("allocations of one client address", "perAddress: 128"), 128),
  /** Highest rate of one node through TURN, in Mbit/s. Default: 100. */
  mbitPerUser: orElse(count("Mbit/s of one node", "mbitPerUser: 100"), 100)
}).annotations(Hint.make(
  "a mapping with total, perUser, perAddress and mbitPerUser",
  "write for example quotas: {perUser: 16, mbitPerUser: 100}"
))

/**
 * The TURN server (RFC 8656), for WebRTC. It needs one listening port, and all of `ports` open for
 * UDP.
 */
const Turn = Schema.Struct({
  /**
   * Address where the TURN server listens over UDP, as `host:port`. It needs `udp`, `tcp` or both.
   */
  udp: maybe(address("TURN over UDP", "udp: \"0.0.0.0:3480\"")),
  /** Address where the TURN server listens over TCP, as `host:port`. */
  tcp: maybe(address("TURN over TCP", "tcp: \"0.0.0.0:3480\"")),
  /** Public IP address of this relay, as peers see it. */
  publicAddress: Schema.String.pipe(
    Schema.filter((text) => isIP(text) !== 0),
    Schema.annotations(Hint.make("the public IP address of this relay", "write for example publicAddress: 203.0.113.7"))
  ),
  /** UDP ports of relayed addresses, as a range. Default: `"49152-65535"`. */
  ports: orElse(
    Schema.transformOrFail(Schema.String, PortRange, {
      strict: true,
      decode: (text, _, ast) => Either.mapLeft(portRange(text), (problem) => new ParseResult.Type(ast, text, problem)),
      encode: ({ from, to }) => Either.right(`${from}-${to}`)
    }).pipe(Schema.annotations(Hint.make("a range of UDP ports", "write for example ports: \"49152-65535\""))),
    { from: 49_152, to: 65_535 }
  ),
  /**
   * IP addresses and CIDR blocks that clients may reach through TURN in addition to public
   * addresses. Default: none.
   */
  allowPeers: orElse(
    list(
      Schema.String.pipe(
        Schema.filter((text) => IpBlock.parse(text) !== null),
        Schema.annotations(Hint.make("an IP address or a CIDR", "write for example allowPeers: [10.1.0.0/16]"))
      ),
      "IP addresses and CIDRs",
      "allowPeers: [10.1.0.0/16]"
    ),
    []
  ),
  /**
   * Whether the server answers UDP requests that are shorter than their answer. Browsers send such
   * requests. With `true`, an attacker who forges a source address can make the server send that
   * address more bytes than the attacker sent. Default: `false`.
   */
  answerShort: orElse(flag("answerShort: true"), false),
  /** Most allocations, and highest rate of a node. */
  quotas: orElse(TurnQuotas, { total: 1000, perUser: 16, perAddress: 128, mbitPerUser: 100 })
}).pipe(
  Schema.filter(({ tcp, udp }) => udp !== undefined || tcp !== undefined),
  Schema.annotations(Hint.make(
    "a mapping with publicAddress, and udp, tcp or both",
    "write for example turn: {udp: \"0.0.0.0:3480\", publicAddress: 203.0.113.7}"
  ))
)

const blocks = (example: string) =>
  list(
    Schema.String.pipe(
      Schema.filter((text) => IpBlock.parse(text) !== null),
      Schema.annotations(Hint.make("an IP address or a CIDR", `write for example ${example}`))
    ),
    "IP addresses and CIDRs",
    example
  )

/** The configuration file of a relay that holds the directory. */
export const Relay = Schema.Struct({
  role: Schema.Literal("relay"),
  ...common,
  /**
   * Addresses where the relay listens: `https` over TCP for links and pages, and `udp` for STUN and
   * relayed packets.
   */
  listen: Schema.Struct({ https: address("HTTPS", "https: \"0.0.0.0:443\""), ...listenUdp }).annotations(
    Hint.make(
      "a mapping with https and udp",
      "write for example listen: {https: \"0.0.0.0:443\", udp: \"0.0.0.0:3478\"}"
    )
  ),
  /** Public address that nodes connect to. The ports default to those of `listen`. */
  advertise: Schema.Struct({ ...advertised, https: maybe(port("the public HTTPS port", "https: 443")) }).annotations(
    advertiseHint
  ),
  /**
   * The operator's certificate. If omitted, the relay issues its own certificates, which nodes
   * recognise by the key in their token.
   */
  tls: maybe(
    Schema.Struct({
      cert: path("a PEM certificate chain", "cert: fullchain.pem"),
      key: path("a PEM private key", "key: privkey.pem")
    }).annotations(
      Hint.make("a mapping with cert and key", "write for example tls: {cert: fullchain.pem, key: privkey.pem}")
    )
  ),
  /**
   * Addresses of load balancers that connect to `listen.https` and pass TLS through. Each of their
   * connections must start with a PROXY header, which reports the client's address. Default: none.
   */
  proxyProtocol: orElse(blocks("proxyProtocol: [\"10.0.0.5\"]"), []),
  /**
   * Addresses (`from`) of reverse proxies that connect to `listen.https` and terminate TLS with a
   * public certificate for `advertise.host`.
   */
  behindProxy: maybe(
    Schema.Struct({ from: blocks("from: [\"127.0.0.1\"]") }).annotations(
      Hint.make("a mapping with from", "write for example behindProxy: {from: [\"127.0.0.1\"]}")
    )
  ),
  /**
   * Whether the relay also accepts links over HTTP/3, at the UDP port with the same number as
   * HTTPS. It needs another process. Default: `false`.
   */
  http3: orElse(flag("http3: true"), false),
  /** The TURN server, for WebRTC. If omitted, there is none. */
  turn: maybe(Turn),
  /**
   * Whether to serve the page for people at `/app`. The page needs `tls` or `behindProxy`, because
   * browsers do not trust a certificate that the relay issued itself. Default: `true`.
   */
  app: orElse(flag("app: false"), true),
  /** The private targets, each with its ports and its network. Default: none. */
  resources: orElse(list(Resource, "resources", "resources: [{name: intranet, address: 10.0.0.5, tcp: [80]}]"), []),
  /** Rules that say which clients may reach which resources. Everything else is denied. */
  access: orElse(list(Rule, "access rules", "access: [{clients: [alice], resources: [intranet]}]"), [])
})

/**
 * The configuration file of a relay without a directory. It forwards packets for the nodes of the
 * relay that it has joined.
 */
export const Forwarder = Schema.Struct({
  role: Schema.Literal("relay"),
  ...common,
  /**
   * The enrolment token with which this relay joined another one. The key must stay in the file,
   * because it marks this kind of relay.
   */
  join: Token,
  /**
   * URL of the proxy through which this relay reaches the directory's HTTPS port, or `none`. If
   * omitted, HTTPS_PROXY, ALL_PROXY and NO_PROXY of the environment decide.
   */
  proxy: maybe(Proxy),
  /**
   * Path of a PEM file with certificate authorities that are trusted in addition to the public
   * ones.
   */
  ca: maybe(Ca),
  /** Addresses where this relay listens. It needs no TCP port. */
  listen: Schema.Struct(listenUdp).annotations(
    Hint.make("a mapping with udp", "write for example listen: {udp: \"0.0.0.0:3478\"}")
  ),
  /** Public address that nodes send packets to. The port defaults to that of `listen`. */
  advertise: Schema.Struct(advertised).annotations(advertiseHint)
})

/**
 * URL of a STUN server (RFC 7064), or of a TURN server (RFC 7065) with the user name and password
 * before an `@`.
 */
const iceServer = Schema.String.pipe(
  Schema.pattern(/^(stun:|turn:[^:@\s]+:[^@\s]+@)([^:@\s]+|\[[0-9a-fA-F:.]+\]):\d{1,5}$/),
  Schema.annotations(Hint.make(
    "stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT",
    "write for example stun:stun.example.com:3478; TURN is spoken over UDP only"
  ))
)

/**
 * Most addresses in `udp.advertise`. Each fills one entry of the list of candidates that peers
 * receive.
 */
const MAX_ADVERTISED = 4

/**
 * Public addresses as `IP:port`, or as `IP` if the NAT keeps the port. At most {@link
 * MAX_ADVERTISED}.
 */
const Advertise = Schema.Array(
  Schema.transformOrFail(Schema.String, Schema.Struct({ host: Schema.String, port: Schema.Int }), {
    strict: true,
    decode: (text, _, ast) =>
      Either.mapLeft(HostPort.parseAdvertised(text), (problem) => new ParseResult.Type(ast, text, problem)),
    encode: ({ host, port }) => Either.right(port === 0 ? host : renderHostPort({ host, port }))
  }).pipe(Schema.annotations(Hint.make(
    "a public IP address with the forwarded UDP port, as \"IP:port\", or alone where the NAT keeps the port",
    "write for example advertise: [\"203.0.113.7:41641\"]"
  )))
).pipe(
  Schema.maxItems(MAX_ADVERTISED),
  Schema.annotations(Hint.make(
    `a list of at most ${MAX_ADVERTISED} addresses`,
    "write for example advertise: [\"203.0.113.7:41641\"]"
  ))
)

const interfaces = (example: string) =>
  list(
    Schema.String.pipe(
      Schema.filter((text) => text !== "" && text.length <= 64 && !/[\p{Cc}]/u.test(text)),
      Schema.annotations(
        Hint.make("the name of a network interface, with * for any characters", `write for example ${example}`)
      )
    ),
    "names of network interfaces",
    example
  )

const Udp = Schema.Struct({
  /** Local UDP port for direct paths, from 0 to 65535. Default: 0, for any free port. */
  port: orElse(port("the local UDP port, 0 for any", "port: 41641", 0), 0),
  /**
   * Addresses at which peers reach this node from outside, in addition to those that it finds
   * itself. An address without a port stands for the local port. Default: none.
   */
  advertise: orElse(Advertise, []),
  /**
   * Network interfaces whose addresses are offered to peers first (`prefer`), and those whose
   * addresses are never offered (`exclude`). `*` in a name stands for any characters.
   */
  interfaces: orElse(
    Schema.Struct({
      prefer: orElse(interfaces("prefer: [wg0]"), []),
      exclude: orElse(interfaces("exclude: [\"docker*\"]"), [])
    }).annotations(Hint.make(
      "a mapping with prefer and exclude",
      "write for example interfaces: {prefer: [wg0], exclude: [\"docker*\"]}"
    )),
    { prefer: [], exclude: [] }
  )
}).annotations(Hint.make("a mapping with port, advertise and interfaces", "write for example udp: {port: 41641}"))

const node = {
  ...common,
  /** Export of traces, logs and metrics, and consent to reports. */
  telemetry: orElse(NodeTelemetry, { sample: 1, report: false }),
  /**
   * The enrolment token: its text, `{file: PATH}` or `{env: NAME}`. It works once, and it may be
   * removed when the node has enrolled.
   */
  token: maybe(Token),
  /**
   * URL of the proxy through which this node reaches the relay's HTTPS port, or `none`. If omitted,
   * HTTPS_PROXY, ALL_PROXY and NO_PROXY of the environment decide. UDP never goes through the
   * proxy.
   */
  proxy: maybe(Proxy),
  /**
   * Path of a PEM file with certificate authorities that are trusted in addition to the public
   * ones.
   */
  ca: maybe(Ca),
  /**
   * Transport of the link to the relay. `webtransport` runs over HTTP/3 if the relay has it, and
   * over HTTP/2 otherwise. Default: `auto`, which is `websocket`, but relayed packets also try
   * HTTP/3.
   */
  carrier: orElse(choice("carrier: auto", "auto", "webtransport", "websocket"), "auto"),
  /**
   * Paths that sessions may use. With `auto`, packets go directly if possible. With `relay`, they
   * always go through a relay, so peers do not learn this node's addresses. Default: `auto`.
   */
  path: orElse(choice("path: auto", "auto", "relay"), "auto"),
  /**
   * Set to `off` not to ask the gateway (PCP, NAT-PMP, UPnP) to map the local UDP port. Default:
   * `auto`, which makes direct paths succeed more often.
   */
  portMapping: orElse(choice("portMapping: auto", "auto", "off"), "auto"),
  /**
   * Set to `auto` to try WebRTC if no direct path is found. Both peers must do so, and it needs
   * another process. A connector needs it for browsers. Default: `off`.
   */
  webrtc: orElse(choice("webrtc: auto", "auto", "off"), "off"),
  /** URLs of STUN and TURN servers for WebRTC, in addition to the relay's own. Default: none. */
  iceServers: orElse(list(iceServer, "STUN and TURN servers", "iceServers: [\"stun:stun.example.com:3478\"]"), []),
  /** Local UDP port, and the addresses that are offered to peers. */
  udp: orElse(Udp, { port: 0, advertise: [], interfaces: { prefer: [], exclude: [] } })
}

/**
 * Highest value of `flowsPerClient`. A QUIC session has at most 4,096 streams, and the control
 * stream and closing ones need some.
 */
const MAX_FLOWS_PER_CLIENT = 4000
/**
 * Longest `offlineAccess`, in hours. The relay signs outage permits for no longer (`Lifetimes`).
 */
const MAX_OFFLINE_HOURS = NORMAL.outage / 3600
/** Longest wait for open flows, in seconds. A service manager waits no longer than about that. */
const MAX_DRAIN_SECONDS = 3600
const limits = {
  /**
   * Most flows of this node at once. If there is no room for another flow, the node cuts the flow
   * that has been idle longest, if that is at least five minutes. Otherwise it refuses the new
   * flow. Default: 4096.
   */
  flows: orElse(count("flows of this node at once", "flows: 4096"), 4096)
}
const ConnectorLimits = Schema.Struct({
  ...limits,
  /** Most flows of one client at once. They also count for `flows`. Default: 1024. */
  flowsPerClient: orElse(
    Schema.Int.pipe(
      Schema.between(1, MAX_FLOWS_PER_CLIENT),
      Schema.annotations(Hint.make(
        `flows of one client at once: a whole number from 1 to ${MAX_FLOWS_PER_CLIENT}`,
        "write for example flowsPerClient: 1024"
      ))
    ),
    1024
  )
}).annotations(
  Hint.make("a mapping with flows and flowsPerClient", "write for example limits: {flows: 4096, flowsPerClient: 1024}")
)

/** The configuration file of a connector. */
export const Connector = Schema.Struct({
  role: Schema.Literal("connector"),
  ...node,
  /** Most flows at once, in total and of one client. */
  limits: orElse(ConnectorLimits, { flows: 4096, flowsPerClient: 1024 }),
  /**
   * How long the connector waits for open flows when it stops, in seconds, from 0 to 3600.
   * Meanwhile it takes no new flows. Default: 30.
   */
  drainTimeout: orElse(
    Schema.Int.pipe(
      Schema.between(0, MAX_DRAIN_SECONDS),
      Schema.annotations(Hint.make(
        `how many seconds to wait for open flows when stopping: a whole number from 0 to ${MAX_DRAIN_SECONDS}`,
        "write for example drainTimeout: 30"
      ))
    ),
    30
  ),
  /**
   * How long clients keep the access that they have while this connector cannot reach its home
   * relay, in hours, from 0 to 168. It counts from the last renewal of the client's grant, which is
   * at most 5 minutes before. 0: access ends with the grant. Default: 24.
   */
  offlineAccess: orElse(
    Schema.Number.pipe(
      Schema.between(0, MAX_OFFLINE_HOURS),
      Schema.annotations(Hint.make(
        `for how many hours access goes on without the home relay: a number from 0 to ${MAX_OFFLINE_HOURS}`,
        "write for example offlineAccess: 24, or 0 to forbid it"
      ))
    ),
    24
  )
})

const Forward = Schema.Struct({
  /** Local address where this forward listens, as `host:port`. */
  listen: address("this forward", "listen: \"127.0.0.1:8080\""),
  /** Name of the resource to which connections go. */
  resource: nameOf("resource name", "resource: intranet"),
  /** TCP port of the resource. */
  port: port("the resource's port", "port: 80"),
  /** Protocol of the connections. Default: `tcp`, which is all that this version forwards. */
  protocol: orElse(
    Schema.Literal("tcp").annotations(
      Hint.make("tcp, since this version forwards no UDP", "write protocol: tcp, or leave the key out")
    ),
    "tcp"
  )
}).annotations(Hint.make(
  "a mapping with listen, resource and port",
  "write for example {listen: \"127.0.0.1:8080\", resource: intranet, port: 80}"
))

/** The configuration file of a client. */
export const Client = Schema.Struct({
  role: Schema.Literal("client"),
  ...node,
  /**
   * Address of a SOCKS5 and SOCKS4a listener for all resources, as `host:port`. It asks for no
   * password. If omitted, there is none.
   */
  socks5: maybe(address("SOCKS5", "socks5: \"127.0.0.1:1080\"")),
  /** Most flows at once. */
  limits: orElse(
    Schema.Struct(limits).annotations(Hint.make("a mapping with flows", "write for example limits: {flows: 4096}")),
    { flows: 4096 }
  ),
  /** Local ports that each lead to one port of one resource. Default: none. */
  forwards: orElse(
    list(Forward, "forwards", "forwards: [{listen: \"127.0.0.1:8080\", resource: intranet, port: 80}]"),
    []
  )
})

/** The values of the key `role`. */
export const ROLES = ["relay", "connector", "client"] as const
/** A value of the key `role`. */
export type Role = typeof ROLES[number]

/** Schema of a configuration file of any role, as it is written. */
export const ConfigFile = Schema.Union(Relay, Forwarder, Connector, Client)
export type ConfigFile = typeof ConfigFile.Type

/**
 * Kind of a configuration file. A file with role `relay` is a forwarder's if it has the key `join`.
 */
export type Kind = Role | "forwarder"

const byKind = { relay: Relay, forwarder: Forwarder, connector: Connector, client: Client }

/** Returns the schema of one kind alone, so that messages speak only of that kind. */
export const ofKind = (kind: Kind): Schema.Schema<ConfigFile, typeof ConfigFile.Encoded> => byKind[kind] as never

/** Returns the top-level keys of a kind. */
export const keysOf = (kind: Kind): ReadonlyArray<string> => Object.keys(byKind[kind].fields)
