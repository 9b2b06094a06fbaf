// Every pair of networks in the NAT lab: which path a session finds, why, and how soon. Build first. Root on Linux, apt: nftables
// iproute2 conntrack curl. Prints a table on stderr and JSON on stdout; ends with 1 when a pair is not as it must be (NatPairs.ts).
//     node bench/natlab-matrix.mjs [--pairs 'symmetric×*,cgn×none'] [--rounds 1] [--labs 1] [--seconds N]
// --labs: side by side; more than one takes less time, and spoils the times that it tells. --seconds: no trial is begun after that.
import { runBundled } from "./support/bundled.mjs"

await runBundled("natlabMatrix")
