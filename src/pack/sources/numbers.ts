/** Decimal numbers in bytes of text, as JSON and CSV have them. */

/** Powers of ten that a double holds exactly. */
const POWERS = Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`));
const MAX_EXACT = 2 ** 53;

const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;

/** Reads one number at a time; what it found is in its fields, so that nothing is allocated. */
export class NumberReader {
  /** Rounded to the nearest double. */
  value = 0;
  /** Whether it had neither a fraction nor an exponent. */
  isInteger = false;
  /** Whether an integer is past 2^53: `value` may be rounded, its text is exact. */
  isBig = false;

  /**
   * Reads `-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?` from `start` on, where a byte that is no part of a number follows before
   * the end. Returns where the number ends, or -1 where there is none.
   */
  read(bytes: Buffer, start: number): number {
    let at = start;
    let digit = bytes[at]!;
    const negative = digit === MINUS;
    if (negative) digit = bytes[++at]!;
    const first = at;
    digit -= ZERO;
    if (!(digit >= 0 && digit <= 9)) return -1;
    let value = digit;
    at++;
    if (digit !== 0) {
      for (digit = bytes[at]! - ZERO; digit >= 0 && digit <= 9; digit = bytes[++at]! - ZERO) {
        value = value * 10 + digit;
      }
    } else if (bytes[at]! >= ZERO && bytes[at]! <= 0x39) return -1;
    const next = bytes[at]!;
    if (next !== DOT && (next | 0x20) !== 0x65) {
      this.isInteger = true;
      this.isBig = value >= MAX_EXACT;
      if (this.isBig) this.value = Number(bytes.toString("latin1", start, at));
      else this.value = negative ? -value : value;
      return at;
    }
    this.isInteger = false;
    return this.#readFloat(bytes, start, first, at, value);
  }

  /**
   * Whether the number that was just read from `[start, end)` is an integer that loses digits as a double: `value` is
   * another, and not one that JavaScript writes so (123456789012345680000 for the double 123456789012345683968).
   */
  isRounded(bytes: Buffer, start: number, end: number): boolean {
    if (!this.isInteger || !this.isBig) return false;
    const text = bytes.toString("latin1", start, end);
    return (
      !Number.isFinite(this.value) || (text !== String(this.value) && BigInt(text) !== BigInt(this.value))
    );
  }

  #readFloat(bytes: Buffer, start: number, first: number, dot: number, whole: number): number {
    let at = dot;
    let value = whole;
    let digits = at - first;
    let exponent = 0;
    if (bytes[at] === DOT) {
      let digit = bytes[++at]! - ZERO;
      if (!(digit >= 0 && digit <= 9)) return -1;
      for (; digit >= 0 && digit <= 9; digit = bytes[++at]! - ZERO) value = value * 10 + digit;
      exponent = dot + 1 - at;
      digits -= exponent;
    }
    if ((bytes[at]! | 0x20) === 0x65) {
      let sign = bytes[++at]!;
      const negative = sign === MINUS;
      if (negative || sign === 0x2b) sign = bytes[++at]!;
      let digit = sign - ZERO;
      if (!(digit >= 0 && digit <= 9)) return -1;
      let power = 0;
      for (; digit >= 0 && digit <= 9; digit = bytes[++at]! - ZERO)
        power = Math.min(power * 10 + digit, 99_999);
      exponent += negative ? -power : power;
    }
    if (digits <= 400 && value < MAX_EXACT && exponent >= -22 && exponent <= 22) {
      // Both are exact, so that one rounding is all there is.
      const scaled = exponent < 0 ? value / POWERS[-exponent]! : value * POWERS[exponent]!;
      this.value = bytes[start] === MINUS ? -scaled : scaled;
    } else this.value = Number(bytes.toString("latin1", start, at));
    return at;
  }
}
