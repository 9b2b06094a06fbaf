import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc } from "effect"
import { Buffer } from "node:buffer"
import { createHash } from "node:crypto"
import { ErrorCode } from "../../src/protocol/http3/Http3.ts"
import * as Huffman from "../../src/protocol/http3/Huffman.ts"
import * as Qpack from "../../src/protocol/http3/Qpack.ts"
import { runs } from "../support/Runs.ts"

type Fields = ReadonlyArray<readonly [string, string]>

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ""), "hex"))
const huffman = (text: string): string | null => {
  const bytes = hex(text)
  return Huffman.decode(bytes, 0, bytes.length)
}
const right = (bytes: Uint8Array, maxBytes = 100_000) => Either.getOrThrow(Qpack.decode(bytes, maxBytes))
const faultOf = (bytes: Uint8Array, maxBytes = 100_000) =>
  Either.match(Qpack.decode(bytes, maxBytes), { onLeft: (fault) => fault.code, onRight: () => 0 })

const ALL_BYTES = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i))
/** Of those, by the table of hpack.js 2.1.6; hpack 4.0.0 for Python makes the same. */
const ALL_BYTES_CODED = Uint8Array.from(
  Buffer.from(
    `/8f//Y///+L///4////k///+X///5v///n///+j//+r////z///6f///q////9///+v///7P///t///+7///7////w////H///8v////v///
    z////T///9f///2////f///+P///5////r///+1P4/n/r/yr8f6/r+/n/f0suwAImWm3HXn7n3//IP+/8/9Q3b1/BhxY8mXNn0adWvZt3b+H
    Hl+c/3/3//w/+f/kX/9HGSQss05unWimo9faxCbe/jz69//7/n/7/9////z//m//9L//n//6P//T//9T//1f//s//+t//9r//7f//3P//u//
    /e///r//+////Z///b//6///4P//7v//w///i///H//+T//uf/+x//+X//2f//zf//n///v//9r//u//9P//t//+5//+j//9P//e///V//7v
    //vf//4f/9///3///1///s//8H//h//+D//xf//t//+H//93//7//+r//4v//j//+T//+H//y///N///H///g///4f/+v//j//8///8v//o/
    //2f//8X///H///yf//97///v///8v//+P//+3//l//4///+b///wf//+H///n///8X//+X//k//8v///R///0////7///4////J///5f/+z
    ///P//t//83//0//+f//0f//z//+r//6///93//+////T///X///q///p///1///+b///s///7f///P///6P///T///6v///X////3///s//
    /9v///u///9////w///7vw==`,
    "base64"
  )
)

/** Made by the encoder of nghttp3 0.8.0, with a dynamic table of 0 bytes. */
const KNOWN: ReadonlyArray<readonly [string, Fields]> = [
  [
    `0000d1509040e8a3d567b12b97c8e9ae82dc69a659d7518f6075d6c1aa90be579d34d1fe77805f2f004148b1275ad1ffa3fe6f4f61e9
      35b4ff3f7de0fe42c83f9fa53f9d274ff90c576c1d527f3f7de0fe5f7ff92f044148b1275ad1ad49e33505023f302f064148b1275ad1
      ad5d034ca7b29f07224c696e757822ff1f5f50ced07f66a281b0dae053fafc087ed4ce6aadf2a7979c89c6bfb521aeba0bc8b1e63258
      6d975765c53facd8f7e8cff4a506ea5531149d4ffda97a7b0f49580b205c0b817029b8728ec330db2eaecb9f5f0eb0497ca589d34d1f
      43aeba0c41a4c7a98f33a69a3fdf9a68fa1d75d0620d263d4c79a68fbed00177febe58f9fbed00177b2f034148b4a549275906497f83
      a8f5172f034148b4a549275a93c85f86a87dcd30d25f2f034148b4a549275ad416cf023f312f034148b4a549275a42a13f8690e4b692
      d49f5f10929bd9abfa5242cb40d25fa523b3e94f684c9f5f398b2d4b70ddf45abefb4005df55914150831ea8001132d36e3af3e38c92
      165f2eaec31ec327d785b6007d286f`,
    [
      [":method", "GET"],
      [":authority", "sallyport.example:4433"],
      [":scheme", "https"],
      [":path", "/app/index.html?v=2"],
      ["sec-ch-ua", "\"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\""],
      ["sec-ch-ua-mobile", "?0"],
      ["sec-ch-ua-platform", "\"Linux\""],
      ["upgrade-insecure-requests", "1"],
      [
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
      ],
      ["accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
      ["sec-fetch-site", "none"],
      ["sec-fetch-mode", "navigate"],
      ["sec-fetch-user", "?1"],
      ["sec-fetch-dest", "document"],
      ["accept-encoding", "gzip, deflate, br, zstd"],
      ["accept-language", "en-US,en;q=0.9"],
      ["cookie", "session=0123456789abcdef"],
      ["priority", "u=0, i"]
    ]
  ],
  [
    `0000cfd7508a089d5c0b8170dc69a65951886103a28f559ec4ff2f00b95d8749c87a3f89f058d360ea4567b13f2f0e4148b782c69b07
      522b3d895a74a6b65692c1ca900b01315f4b8e9d29ad17186075d6b97c8e9ae82f`,
    [
      [":method", "CONNECT"],
      [":scheme", "https"],
      [":authority", "127.0.0.1:4433"],
      [":path", "/sallyport"],
      [":protocol", "webtransport"],
      ["sec-webtransport-http3-draft02", "1"],
      ["origin", "https://app.example"]
    ]
  ],
  [
    `0000d92f0d4148b782c69b07522b3d895a74a6b65692c1ca9f8592c1ca900bf4e85f4d8740e8a3d567b13fff22`,
    [
      [":status", "200"],
      ["sec-webtransport-http3-draft", "draft02"],
      ["content-type", "text/html; charset=utf-8"],
      ["cache-control", "no-store"],
      ["server", "sallyport"],
      ["x-frame-options", "deny"]
    ]
  ],
  [
    `0000d4508fffd88000dc9237ae5c0fff2e34d33fd7c154023137eedd5f4b8e9d29ad17186075d6b97c8e9ae82f2ef2b169ad3ebf0022
      7465864d833505b11f`,
    [
      [":method", "POST"],
      [":authority", "[2001:db8::1]:443"],
      [":scheme", "https"],
      [":path", "/"],
      ["content-length", "17"],
      ["content-type", "application/json"],
      ["accept", "*/*"],
      ["origin", "https://app.example"],
      ["x-empty", ""],
      ["te", "trailers"]
    ]
  ]
]

/** SHA-256 of its static table, as JSON of [name, value] in order. */
const STATIC_TABLE_HASH = "7dce2dc56c18201a3d209281200b80fe9cc27819e4e2b16d6f23b7c045a360b8"

/** Entry `index` of the static table alone. */
const indexed = (index: number) => Uint8Array.from(index < 63 ? [0, 0, 0xc0 | index] : [0, 0, 0xff, index - 63])
const latin1 = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString("latin1"))
const field = fc.oneof(
  fc.tuple(latin1, latin1),
  fc.tuple(fc.nat(98), fc.option(latin1)).map(([index, value]): [string, string] => {
    const [name, own] = right(indexed(index))[0]!
    return [name, value ?? own]
  })
)
const noise = fc.uint8Array({ maxLength: 40 })
const mutated = (sources: ReadonlyArray<Uint8Array>) =>
  fc.tuple(fc.constantFrom(...sources), noise, fc.nat(), fc.nat()).map(([source, noise, at, cut]) => {
    const bytes = source.slice(0, cut % 2 === 0 ? source.length : cut % (source.length + 1))
    for (let i = 0; i + 1 < noise.length; i += 8) bytes[(at + noise[i]!) % bytes.length] = noise[i + 1]!
    return bytes
  })

describe("Huffman", () => {
  it("reads the examples of RFC 7541, appendices C.4 and C.6", () => {
    assert.strictEqual(huffman("f1e3 c2e5 f23a 6ba0 ab90 f4ff"), "www.example.com")
    assert.strictEqual(huffman("a8eb 1064 9cbf"), "no-cache")
    assert.strictEqual(huffman("25a8 49e9 5ba9 7d7f"), "custom-key")
    assert.strictEqual(huffman("25a8 49e9 5bb8 e8b4 bf"), "custom-value")
    assert.strictEqual(
      huffman("d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff"),
      "Mon, 21 Oct 2013 20:13:21 GMT"
    )
    assert.strictEqual(huffman("9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3"), "https://www.example.com")
  })

  it("knows the code of every byte", () =>
    assert.strictEqual(Huffman.decode(ALL_BYTES_CODED, 0, ALL_BYTES_CODED.length), ALL_BYTES))

  it("refuses bad padding and EOS", () => {
    assert.strictEqual(huffman(""), "")
    assert.strictEqual(huffman("07"), "0")
    assert.isNull(huffman("06"))
    assert.isNull(huffman("03"))
    assert.isNull(huffman("ff"))
    assert.isNull(huffman("07ff"))
    assert.isNull(huffman("fffffffc"), "EOS, and then two bits")
    assert.isNull(huffman("ffffffff"), "EOS, and then padding")
  })

  it("reads no byte outside of what it is given", () => {
    const bytes = hex("06 a8eb 1064 9cbf 06")
    assert.strictEqual(Huffman.decode(bytes, 1, 7), "no-cache")
  })
})

describe("Qpack", () => {
  it("decodes what nghttp3 encodes", () => {
    for (const [bytes, fields] of KNOWN) assert.deepStrictEqual(right(hex(bytes)), fields)
  })

  it("reads and writes RFC 9204, appendix B.1", () => {
    const bytes = hex("0000 510b 2f69 6e64 6578 2e68 746d 6c")
    assert.deepStrictEqual(right(bytes), [[":path", "/index.html"]])
    assert.deepStrictEqual(Qpack.encode([[":path", "/index.html"]]), bytes)
  })

  it("has the static table of nghttp3", () => {
    const table = Array.from({ length: 99 }, (_, index) => right(indexed(index))[0])
    assert.strictEqual(createHash("sha256").update(JSON.stringify(table)).digest("hex"), STATIC_TABLE_HASH)
  })

  it("refers to all 99 static entries by index", () => {
    for (let index = 0; index < 99; index++) assert.deepStrictEqual(Qpack.encode(right(indexed(index))), indexed(index))
    assert.strictEqual(faultOf(indexed(99)), ErrorCode.qpackDecompression)
    assert.deepStrictEqual(Qpack.encode([[":status", "418"]]), hex("0000 5f09 03 343138"))
    assert.deepStrictEqual(right(hex("0000 5f09 03 343138")), [[":status", "418"]])
    assert.deepStrictEqual(right(indexed(62)), [["x-xss-protection", "1; mode=block"]])
    assert.deepStrictEqual(right(indexed(98)), [["x-frame-options", "sameorigin"]])
  })

  it("decodes what it encodes", () =>
    fc.assert(
      fc.property(fc.array(field, { maxLength: 12 }), (fields) => {
        assert.deepStrictEqual(right(Qpack.encode(fields)), fields)
      }),
      { numRuns: runs(2000) }
    ))

  it("writes long lengths, and question marks for characters above Latin-1", () => {
    for (const length of [6, 7, 8, 126, 127, 128, 254, 255, 300, 20_000]) {
      const fields: Fields = [["n".repeat(length), "v".repeat(length)]]
      assert.deepStrictEqual(right(Qpack.encode(fields)), fields)
    }
    assert.deepStrictEqual(right(Qpack.encode([["x-char", "a\u{10a}b"]])), [["x-char", "a?b"]])
  })

  it("refuses whatever needs a dynamic table", () => {
    const refused = {
      "Required Insert Count 1": "0200 c1",
      "negative Base": "0080 c1",
      "dynamic index": "0000 80",
      "post-base index": "0000 10",
      "dynamic name": "0000 40 0161",
      "post-base name": "0000 00 0161",
      "no prefix": "00",
      "nothing": ""
    }
    for (const [why, bytes] of Object.entries(refused)) {
      assert.strictEqual(faultOf(hex(bytes)), ErrorCode.qpackDecompression, why)
    }
    assert.deepStrictEqual(right(hex("007fffffffffffffffff3f c1")), [[":path", "/"]], "a Base that nothing refers to")
  })

  it("refuses a section that ends early, and endless integers", () => {
    const whole = hex(KNOWN[3]![0])
    const ends = new Set<number>()
    for (let length = 2; length <= whole.length; length++) {
      if (faultOf(whole.subarray(0, length)) === 0) ends.add(length)
    }
    assert.strictEqual(ends.size, KNOWN[3]![1].length + 1) // between two fields, and at both ends
    assert.strictEqual(faultOf(hex(`0000 ff ${"80".repeat(9)} 00`)), ErrorCode.qpackDecompression)
    assert.strictEqual(faultOf(hex("0000 5f09 7f ffffffffffffffff7f")), ErrorCode.qpackDecompression)
    assert.strictEqual(faultOf(hex("0000 5f09 82 ffff")), ErrorCode.qpackDecompression, "EOS is no padding")
  })

  it("limits the size as RFC 9114, section 4.2.2 counts it", () => {
    const fields: Fields = [["a", "bc"], [":path", "/"]]
    const bytes = Qpack.encode(fields)
    assert.deepStrictEqual(right(bytes, 3 + 32 + 6 + 32), fields)
    assert.strictEqual(faultOf(bytes, 3 + 32 + 6 + 32 - 1), ErrorCode.excessiveLoad)
    const many = new Uint8Array(100_000).fill(0xc1, 2) // a byte each, 38 of the size each
    assert.strictEqual(faultOf(many, 16_384), ErrorCode.excessiveLoad)
  })

  it("accepts only a capacity of 0 on an encoder stream", () => {
    assert.isNull(Qpack.encoderStreamFault(hex("")))
    assert.isNull(Qpack.encoderStreamFault(hex("2020")))
    for (const bytes of ["21", "3fe11f", "c10161", "4161 0162", "00", "2002"]) {
      assert.strictEqual(Qpack.encoderStreamFault(hex(bytes))?.code, ErrorCode.qpackEncoderStream, bytes)
    }
  })

  it("accepts any bytes without throwing, within the limit", () => {
    const sections = KNOWN.map(([bytes]) => hex(bytes))
    const prefixed = noise.map((noise) => Uint8Array.of(0, 0, ...noise))
    fc.assert(
      fc.property(fc.oneof(noise, prefixed, mutated([...sections, ALL_BYTES_CODED])), (bytes) => {
        const decoded = Qpack.decode(bytes, 1000)
        const size = Either.match(decoded, {
          onLeft: () => 0,
          onRight: (fields) => fields.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0)
        })
        assert.isAtMost(size, 1000)
        assert.isAtMost(Huffman.decode(bytes, 0, bytes.length)?.length ?? 0, bytes.length * 8 / 5)
        Qpack.encoderStreamFault(bytes)
      }),
      { numRuns: runs(10_000) }
    )
  })
})
