/** Sallyport as a library: any role inside another program. */
export type { PathKind } from "./protocol/path/PathKind.ts"
export { RunFailed } from "./roles/Run.ts"
export type { Peer } from "./roles/Running.ts"
export {
  DialFailed,
  type Flow,
  FlowBroken,
  type Handle,
  type Options,
  Sallyport,
  type Service,
  type Source
} from "./roles/Sallyport.ts"
export type { ConfigInput } from "./services/config/Config.ts"
