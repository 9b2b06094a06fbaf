// What an idle session sends: packets of a direct session without flows, counted by the kernels of both hosts in the NAT lab
// (port-restricted NATs). Build first. Root on Linux, apt: nftables iproute2 conntrack curl. Prints JSON.
//     node bench/idle.mjs [--minutes 10] [--nat port-restricted] [--lifetime SECONDS]
import { runBundled } from "./support/bundled.mjs"

await runBundled("idlePackets")
