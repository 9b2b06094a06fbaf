/**
 * The Huffman code of strings in HPACK and QPACK (RFC 7541, section 5.2 and appendix B). The code
 * is canonical: codes of one length are consecutive in the order of their symbols, and the first
 * code of a length follows the last one of the length before. The lengths therefore define the
 * whole code.
 */
/** Length of each byte's code in bits, and at last that of EOS, as one digit in base 36 each. */
const LENGTHS = "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6ca" +
  "d67777777777777777777777878djde6f56565666577666567655677777fbeds" +
  "kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn" +
  "qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq" +
  "u"
const EOS = 256
const MAX_BITS = 30
const MAX_PADDING_BITS = 7

/**
 * Decodes the text in `bytes` from `at` to `end`, a character for each byte (Latin-1). `null` if
 * the padding is longer than 7 bits or not all ones, or if EOS is inside.
 */
export const decode = (bytes: Uint8Array, at: number, end: number): string | null => {
  let text = ""
  let code = 0
  let bits = 0
  for (let i = at; i < end; i++) {
    for (let shift = 7; shift >= 0; shift--) {
      code = (code << 1) | ((bytes[i]! >>> shift) & 1)
      const rank = code - FIRST_CODE[++bits]!
      if (rank >= COUNT[bits]!) continue // the code is longer
      const symbol = SYMBOLS[FIRST_SYMBOL[bits]! + rank]!
      if (symbol === EOS) return null
      text += String.fromCharCode(symbol)
      code = 0
      bits = 0
    }
  }
  return bits <= MAX_PADDING_BITS && code === (1 << bits) - 1 ? text : null
}

const lengthOf = (symbol: number): number => Number.parseInt(LENGTHS[symbol]!, 36)

/** Symbols by the length of their code, then by value. */
const SYMBOLS = Array.from({ length: EOS + 1 }, (_, symbol) => symbol).sort((a, b) =>
  lengthOf(a) - lengthOf(b) || a - b
)
/** Number of codes of each length. */
const COUNT = Array.from({ length: MAX_BITS + 1 }, () => 0)
for (const symbol of SYMBOLS) COUNT[lengthOf(symbol)]!++
/** First code of each length. */
const FIRST_CODE = [0]
/** Position in `SYMBOLS` of each length's first symbol. */
const FIRST_SYMBOL = [0]
for (let bits = 1; bits <= MAX_BITS; bits++) {
  FIRST_CODE.push((FIRST_CODE[bits - 1]! + COUNT[bits - 1]!) << 1)
  FIRST_SYMBOL.push(FIRST_SYMBOL[bits - 1]! + COUNT[bits - 1]!)
}
