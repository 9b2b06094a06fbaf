/** One flow that lasts as long as its session: the client sends numbers, the connector sends each back; every one is checked. */
import type { Role } from "../../../src/protocol/path/PathRef.ts"
import { READ_NOTHING, READ_RESET } from "../../../src/transport/quic/engine/QuicEngine.ts"
import type { QuicStream } from "../../../src/transport/quic/QuicStream.ts"
import type { VirtualTime } from "./VirtualTime.ts"

const GAP_MS = 200
const WORD_BYTES = 4
const HELLO = 0xffff_ffff // so that the connector sees the stream

export class Flow {
  readonly #time: VirtualTime
  readonly #faults: Array<string>
  #client: QuicStream | null = null
  #sent = 0
  #answered = 0
  #kept = Buffer.alloc(0)
  /** When the newest answer came; ms since the world began. */
  answeredAt = 0
  stallMs = 0

  constructor(time: VirtualTime, faults: Array<string>) {
    this.#time = time
    this.#faults = faults
  }

  onStream(role: Role, stream: QuicStream): void {
    const space = Buffer.alloc(65_536)
    const onReadable = () => {
      for (let got = stream.read(space); got !== READ_NOTHING; got = stream.read(space)) {
        if (got === READ_RESET || stream.readOver) return void this.#faults.push(`the flow ended at the ${role}`)
        const bytes = Buffer.from(space.subarray(0, got))
        if (role === "connector") stream.write(bytes)
        else this.#onAnswer(bytes)
      }
    }
    stream.handler = {
      onReadable,
      onWritable: () => {},
      onClosed: () => void this.#faults.push(`the flow was closed at the ${role}`)
    }
    if (role === "client") {
      this.#client = stream
      this.#write(HELLO)
    }
  }

  #write(word: number): void {
    const bytes = Buffer.alloc(WORD_BYTES)
    bytes.writeUInt32BE(word)
    this.#client?.write(bytes)
  }

  /** Sends while `active` says so. */
  run(active: () => boolean): void {
    const { timeline } = this.#time
    if (active() && this.#client !== null) {
      this.stallMs = Math.max(this.stallMs, timeline.now - this.answeredAt)
      this.#write(this.#sent++)
    }
    timeline.after(GAP_MS, () => this.run(active))
  }

  #onAnswer(bytes: Buffer): void {
    let all = Buffer.concat([this.#kept, bytes])
    for (; all.length >= WORD_BYTES; all = all.subarray(WORD_BYTES)) {
      const word = all.readUInt32BE(0)
      if (word === HELLO) continue
      if (word !== this.#answered++) this.#faults.push(`word ${word} came instead of ${this.#answered - 1}`)
      this.answeredAt = this.#time.timeline.now
    }
    this.#kept = Buffer.from(all)
  }
}
