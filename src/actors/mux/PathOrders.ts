/** Carries out what the prober orders for a session: path messages, and which path it takes. */
import { Effect } from "effect"
import * as IceSignal from "../../protocol/candidate/IceSignal.ts"
import type { PathMessage } from "../../protocol/path/PathMessage.ts"
import * as PathReason from "../../protocol/path/PathReason.ts"
import { keyOf, type PathRef, type Reason, type SwitchReason } from "../../protocol/path/PathRef.ts"
import type { PathEvent } from "../path/PathProberRpcs.ts"
import type { RpcsOf } from "../runtime/actor/ActorAddress.ts"
import type { ActorRef } from "../runtime/actor/ActorRef.ts"
import type { SessionId } from "../signaling/RelaySignalingRpcs.ts"
import type { Signaling } from "../signaling/SignalingRpcs.ts"
import type * as Sessions from "./sessions/Sessions.ts"

type Node = ReturnType<typeof Sessions.make>
type Candidates = PathMessage & { readonly _tag: "Candidates" }
interface Of {
  readonly session: SessionId
}
interface Ping {
  readonly padTo: number
  readonly path: PathRef
  readonly txId: string
}

/** Options of {@link make}. */
export interface Options {
  readonly sessions: Pick<Node, "get" | "onKept" | "onSelected">
  readonly signaling: ActorRef<RpcsOf<typeof Signaling>>
  readonly publish: (event: PathEvent) => void
  /** Whether direct paths are allowed now. */
  readonly isDirect: () => boolean
  /** Ends when all packets that had arrived before have been read. */
  readonly socketsRead: Effect.Effect<void>
}

/** Makes the handlers of the prober's calls. A call for a session that has ended does nothing. */
export const make = ({ isDirect, publish, sessions, signaling, socketsRead }: Options) => {
  const withSession = (id: SessionId, use: (session: NonNullable<ReturnType<Node["get"]>>) => void) =>
    Effect.sync(() => {
      const session = sessions.get(id)
      if (session !== undefined) use(session)
    })
  return {
    SendIce: ({ session, signal }: Of & { readonly signal: IceSignal.IceSignal }) =>
      withSession(session, (it) => it.sendIce(IceSignal.encode(signal))),
    TagsOf: ({ session }: Of) => Effect.sync(() => sessions.get(session)?.peer.tags ?? null),
    SendPing: ({ padTo, path, session, txId }: Of & Ping) =>
      withSession(session, ({ peer }) => peer.sendPing(path, txId, padTo)),
    AskRead: ({ session }: Of) =>
      Effect.zipRight(socketsRead, Effect.sync(() => publish({ _tag: "SocketsRead", session }))),
    SendCandidates: ({ list, mapping, seq, session }: Of & Omit<Candidates, "_tag">) =>
      Effect.gen(function*() {
        // An empty list makes a peer forget the addresses that it has learned before.
        const told = isDirect() ? { list, mapping } : { list: [] }
        const message: PathMessage = { _tag: "Candidates", seq, ...told }
        const box = sessions.get(session)?.peer.sealed(message)
        yield* withSession(session, ({ peer }) => peer.sendOnAllPaths(message))
        // The list also goes by signaling, which may reach the peer when no path does.
        if (box) yield* Effect.forkDaemon(Effect.ignore(signaling.ask((client) => client.Forward({ session, box }))))
      }),
    SelectPath: ({ path, reason, session }: Of & { readonly path: PathRef; readonly reason: Reason }) => {
      // The prober has not yet learned that direct paths are closed.
      if (path.kind === "direct" && !isDirect()) return Effect.void
      return Effect.zipRight(
        withSession(session, ({ peer }) => {
          sessions.onSelected(session, reason)
          peer.select(path, !PathReason.isImprovement(reason))
        }),
        Effect.logInfo("path selected").pipe(
          Effect.annotateLogs({ session, path: path.kind === "direct" ? path.kind : keyOf(path), reason })
        )
      )
    },
    KeepPath: ({ reason, session }: Of & { readonly reason: Reason }) =>
      Effect.sync(() => sessions.onKept(session, reason)),
    SetPacketSize: ({ bytes, path, session }: Of & { readonly bytes: number; readonly path: PathRef }) =>
      withSession(session, ({ peer }) => peer.setPacketSize(path, bytes)),
    RequestSwitch: ({ reason, session }: Of & { readonly reason: SwitchReason }) =>
      withSession(session, ({ peer }) => peer.sendOnAllPaths({ _tag: "Switch", reason }))
  } as const
}
