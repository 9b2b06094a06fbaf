/**
 * Decides what to stop first: callers before the actors they use, so that an actor's finalizers may
 * still ask its peers. This module is pure.
 */
/** Name of an actor, and the names of the actors that it uses. */
export interface Node {
  readonly name: string
  readonly uses: ReadonlyArray<string>
}

/**
 * Returns the names in the order in which to stop them: each actor before those that it uses. In a
 * cycle, the node listed first stops first.
 */
export const callersFirst = (nodes: ReadonlyArray<Node>): ReadonlyArray<string> => {
  const byName = new Map(nodes.map((node) => [node.name, node]))
  const usedFirst = new Set<string>()
  const seen = new Set<string>()
  const visit = (name: string) => {
    const node = byName.get(name)
    if (node === undefined || seen.has(name)) return
    seen.add(name)
    for (const used of node.uses) visit(used)
    usedFirst.add(name)
  }
  for (const { name } of nodes) visit(name)
  return [...usedFirst].toReversed()
}
