/** Who may import whom: protocol <- session <- services <- transport <- actors <- roles <- cli. Imports go leftwards only. */
const order = ["protocol", "session", "services", "transport", "actors", "roles", "cli"]
/** The subjects of src/protocol, and what each may import besides itself. */
const subjects = {
  bytes: [],
  http3: ["bytes"],
  flow: ["bytes", "path"],
  trust: ["bytes"],
  candidate: ["bytes"],
  nat: ["bytes", "candidate"],
  path: ["bytes", "candidate", "nat"],
  relay: ["bytes", "trust", "path", "nat"]
}
module.exports = {
  forbidden: [
    {
      name: "no-circular",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } }
    },
    ...order.map((from, at) => ({
      name: `${from}-imports`,
      severity: "error",
      comment: `src/${from} may import: ${order.slice(0, at + 1).join(", ")}`,
      from: { path: `^src/${from}/` },
      to: { path: `^src/(?!(${order.slice(0, at + 1).join("|")})/)` }
    })),
    ...Object.entries(subjects).map(([subject, others]) => ({
      name: `protocol-${subject}-imports`,
      severity: "error",
      comment: `src/protocol/${subject} may import: ${[subject, ...others].join(", ")}`,
      from: { path: `^src/protocol/${subject}/` },
      to: { path: `^src/protocol/(?!(${[subject, ...others].join("|")})/)` }
    })),
    {
      name: "protocol-has-subjects",
      severity: "error",
      comment: `a module of src/protocol belongs into one of: ${Object.keys(subjects).join(", ")}`,
      from: { path: `^src/protocol/(?!(${Object.keys(subjects).join("|")})/)` },
      to: {}
    },
    {
      name: "protocol-is-pure",
      severity: "error",
      comment: "src/protocol only computes: no node: module",
      from: { path: "^src/protocol/" },
      to: { dependencyTypes: ["core"] }
    },
    {
      name: "session-runs-in-pages",
      severity: "error",
      comment: "src/session runs in a browser, too: no node: module",
      from: { path: "^src/session/" },
      to: { dependencyTypes: ["core"] }
    },
    {
      name: "inspector-is-a-page",
      severity: "error",
      comment: "src/inspector runs in a browser: nothing of Node, and nothing of the rest",
      from: { path: "^src/inspector/" },
      to: { path: "^(src/(?!inspector/)|node:)|^(fs|net|http|path|os|crypto|child_process)$" }
    },
    {
      name: "browser-is-for-pages",
      severity: "error",
      comment: "src/browser runs in a browser: protocol, session, and what actors are asked",
      from: { path: "^src/browser/" },
      to: {
        path: "^(src/|node:|fs$|net$|crypto$)",
        pathNot: "^src/(browser/|protocol/|session/|actors/.*Rpcs[.]ts$)"
      }
    },
    {
      name: "app-is-a-page",
      severity: "error",
      comment:
        "src/app runs in a browser: on what pages may import, and with the inspector's polls and its words for numbers",
      from: { path: "^src/app/" },
      to: { path: "^(src/|node:)", pathNot: "^src/(app/|browser/index[.]ts$|inspector/(Poll|Text)[.]ts$)" }
    },
    {
      name: "rpcs-without-behaviour",
      severity: "error",
      comment: "whoever calls an actor must not pull the actor in",
      from: { path: "^src/actors/.*Rpcs[.]ts$" },
      to: { path: "^src/(actors/(?!.*Rpcs[.]ts$|runtime/actor/ActorAddress[.]ts$)|services|transport)" }
    },
    { name: "src-not-to-test", severity: "error", from: { path: "^src/" }, to: { path: "^test/" } },
    { name: "no-orphans-unresolved", severity: "error", from: {}, to: { couldNotResolve: true } }
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: {
      extensions: [".ts", ".js"],
      exportsFields: ["exports"],
      conditionNames: ["import", "require", "node", "default", "types"]
    }
  }
}
