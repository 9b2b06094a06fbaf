/**
 * The local listeners of a client, as one list. The configuration makes the list. The checks of the
 * configuration, the port check at the start, the data plane, the ready message and the bug report
 * go through it, so a new kind of listener is one more case here.
 */
import { Schema } from "effect"
import { FLOW_KINDS, type FlowKind } from "./FlowWire.ts"

/** Address of a listener: host and port, or the path of a unix socket. Port 0 is any free port. */
export const ListenAt = Schema.Union(
  Schema.Struct({ host: Schema.String, port: Schema.Int }),
  Schema.Struct({ path: Schema.String })
)
/** @see {@link ListenAt} */
export type ListenAt = typeof ListenAt.Type

const common = {
  /** Name under which the address is shown, such as `forward1`. `null` if it is not shown. */
  name: Schema.NullOr(Schema.String),
  /** Key in the configuration, such as `forwards[0].listen`. `null` if it is not configured. */
  key: Schema.NullOr(Schema.String),
  at: ListenAt
}

/** One local listener that should be open. */
export const LocalListener = Schema.Union(
  /** A SOCKS listener for all resources. */
  Schema.TaggedStruct("Socks5", common),
  /** A listener that leads to one port of one resource. */
  Schema.TaggedStruct("Forward", {
    ...common,
    protocol: Schema.Literal(...FLOW_KINDS),
    resource: Schema.String,
    port: Schema.Int
  }),
  /** A SOCKS listener for the program that embeds this node. */
  Schema.TaggedStruct("InProcess", common)
)
/** @see {@link LocalListener} */
export type LocalListener = typeof LocalListener.Type
/** Kind of a local listener. */
export type Kind = LocalListener["_tag"]
/** A local listener of one kind. */
export type Of<K extends Kind> = Extract<LocalListener, { readonly _tag: K }>

type HostPort = Extract<ListenAt, { readonly port: number }>

/** The keys of a client's configuration from which its listeners follow. */
export interface Settings {
  readonly socks5: HostPort | null
  readonly forwards: ReadonlyArray<{
    readonly listen: HostPort
    readonly protocol: FlowKind
    readonly resource: string
    readonly port: number
  }>
}

/** Place of a kind of listener in the configuration. */
interface Place {
  readonly key: keyof Settings
  /** Field of each item with the address. `null` if the key itself is the address. */
  readonly field: string | null
  /** Shown name. The items of a list are numbered from 1. */
  readonly name: string
}

/** Places of all kinds of listener. `null` for a kind that the configuration does not have. */
const PLACES = {
  Socks5: { key: "socks5", field: null, name: "socks5" },
  Forward: { key: "forwards", field: "listen", name: "forward" },
  InProcess: null
} as const satisfies Readonly<Record<Kind, Place | null>>

/** Keys of a client's configuration that contain listeners, with the place of the addresses. */
export const CONFIGURED: ReadonlyArray<Place> = Object.values(PLACES).filter((place) => place !== null)

type Key = NonNullable<(typeof PLACES)[Kind]>["key"]
/** Makes a record with the same value for each key that contains listeners. */
export const eachKey = <A extends string>(value: A): Readonly<Record<Key, A>> =>
  Object.fromEntries(CONFIGURED.map(({ key }) => [key, value])) as Record<Key, A>

/** Name and key of the listener with this index in its key. */
const titles = (kind: Kind, index: number) => {
  const place: Place | null = PLACES[kind]
  if (place === null) return { name: null, key: null }
  const { field, key, name } = place
  return field === null ? { name, key } : { name: `${name}${index + 1}`, key: `${key}[${index}].${field}` }
}

/**
 * Lists the listeners of a node. `settings` is `null` for a connector. `inProcess` is the path of
 * the socket for the program that embeds the node, or `null` if none does.
 */
export const listOf = (settings: Settings | null, inProcess: string | null): ReadonlyArray<LocalListener> => {
  const { forwards = [], socks5 = null } = settings ?? {}
  const of: { readonly [K in Kind]: ReadonlyArray<Of<K>> } = {
    Socks5: socks5 === null ? [] : [{ _tag: "Socks5", ...titles("Socks5", 0), at: socks5 }],
    Forward: forwards.map(({ listen, port, protocol, resource }, index) => {
      const { key, name } = titles("Forward", index)
      return { _tag: "Forward", name, key, at: listen, protocol, resource, port }
    }),
    InProcess: inProcess === null ? [] : [{ _tag: "InProcess", ...titles("InProcess", 0), at: { path: inProcess } }]
  }
  return Object.values(of).flat()
}

/**
 * Says for each key whether it has a listener, or how many its list has. The result names no
 * address.
 */
export const summaryOf = (listeners: ReadonlyArray<LocalListener>): Readonly<Record<string, boolean | number>> =>
  Object.fromEntries(
    Object.entries(PLACES).flatMap(([kind, place]) => {
      if (place === null) return []
      const count = listeners.filter(({ _tag }) => _tag === kind).length
      return [[place.key, place.field === null ? count > 0 : count]]
    })
  )
