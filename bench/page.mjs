// What a flow of a page (Chromium, WebRTC) moves beside a flow of a node (QUIC), from the same connector, in turns. Build first; apt: chromium curl.
//     node bench/page.mjs [--rounds 6] [--mib 64]      prints JSON, Mbit/s
import { runBundled } from "./support/bundled.mjs"

await runBundled("page", ".bench/programs")
