/**
 * Lifetimes of everything that is signed, bound or remembered, in seconds, in one table. The soak
 * test runs a build in which all of them are short, so that every lifetime passes several times in
 * minutes. No configuration can change them.
 */

/**
 * `true` in a build by `scripts/build.mjs --short-lifetimes`, `"brief"` in one by
 * `--brief-lifetimes`. Not defined in any other build.
 */
declare const SHORT_LIFETIMES: boolean | "brief" | undefined

/**
 * Lifetimes of documents, sessions and certificates, and the intervals of their renewal. All are in
 * seconds.
 */
export interface Lifetimes {
  /**
   * Life of a grant. A connector that is cut off from the relay cannot miss a revocation for
   * longer.
   */
  readonly grant: number
  /**
   * Life of an outage permit, from the issue of its grant. It bounds how long a node that reaches
   * no directory goes on with that grant. A connector's `offlineAccess` may be shorter.
   */
  readonly outage: number
  /** How long before its end a client renews a grant, so that a relay has time to come back. */
  readonly grantRenewBefore: number
  /** Life of a relay credential, with which a node binds at a relay. */
  readonly credential: number
  /** Time between two relay credentials of a node. One of them may be lost. */
  readonly credentialRefresh: number
  /** Life of a session's ticket at the relay. It is renewed with each grant. */
  readonly ticket: number
  /** Life of TURN credentials, for new allocations. */
  readonly turn: number
  /** Time after which a binding at the relay's UDP port ends if no frame comes from its node. */
  readonly binding: number
  /** Time after which a session without flows ends. */
  readonly idleSession: number
  /**
   * Life of the key that seals a client's TLS session tickets, and of the sessions sealed by it.
   */
  readonly resumption: number
  /** Life of the relay's TLS certificate. Browsers accept one by its hash for at most 14 days. */
  readonly certificate: number
  /** How long before its end the relay replaces its certificate. */
  readonly certificateRenewBefore: number
  /** How often the relay checks whether its certificate is due. */
  readonly certificateCheck: number
  /** How often a node asks for the directory's time. */
  readonly timeCheck: number
}

const DAY = 86_400

/** Lifetimes of every ordinary build. */
export const NORMAL: Lifetimes = {
  grant: 300,
  outage: 7 * DAY,
  grantRenewBefore: 120,
  credential: 600,
  credentialRefresh: 240,
  ticket: 3600,
  turn: 3600,
  binding: 300,
  idleSession: 600,
  resumption: 12 * 3600,
  certificate: 13 * DAY,
  certificateRenewBefore: 6 * DAY,
  certificateCheck: 3600,
  timeCheck: 240
}

/**
 * Lifetimes of the soak test's build. Documents are accepted for 10 s past their end
 * (`Documents.LEEWAY_SECONDS`), so the longest of these passes three times in 3 minutes.
 */
export const SHORT: Lifetimes = {
  grant: 45,
  outage: 50,
  grantRenewBefore: 30,
  credential: 45,
  credentialRefresh: 15,
  ticket: 45,
  turn: 45,
  binding: 45,
  idleSession: 15,
  resumption: 45,
  certificate: 45,
  certificateRenewBefore: 25,
  certificateCheck: 3,
  timeCheck: 12
}

/**
 * Lifetimes of a build for one test, in which a grant ends within seconds but an outage permit does
 * not.
 */
export const BRIEF: Lifetimes = { ...SHORT, grant: 10, outage: 3600, grantRenewBefore: 6, idleSession: 600 }

/** Lifetimes of this build. */
export const LIFETIMES: Lifetimes = typeof SHORT_LIFETIMES === "undefined" || SHORT_LIFETIMES === false
  ? NORMAL
  : SHORT_LIFETIMES === "brief"
  ? BRIEF
  : SHORT
