/**
 * GPT-2's words, which merges never cross: contractions; letters, digits or other signs, with one
 * leading space; white space. The same as
 * `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, with Unicode's
 * white space (`\s` of JavaScript has U+FEFF and lacks U+0085), but at any length: runs of millions
 * of letters are too much for a regular expression.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { UserError } from "../../errors.ts";

/** What a character is; 0 stands for not looked up yet. */
const LETTER = 1, DIGIT = 2, SPACE = 3, SIGN = 4;

/** The kind of each code point that was met. */
const kinds = new Uint8Array(0x110000);

const APOSTROPHE = 0x27, BLANK = 0x20;

/** Longest run without a place to cut, in UTF-16 units: merging takes some 50 bytes for each. */
const LONGEST_RUN = 2 ** 24;

/** Does something with each word of a whole text, or of a part of {@linkcode wholeWords}. */
export function forEachWord(text: string, action: (word: string) => void): void {
  for (let at = 0, end; at < text.length; at = end) {
    end = wordEnd(text, at);
    action(text.slice(at, end));
  }
}

/**
 * A text in parts that each are whole words: the words of the parts are those of the text.
 *
 * @param pieces of the text; none ends within a character
 * @throws {UserError} if a run without a place to cut is too long
 */
export function* wholeWords(pieces: Iterable<string>): Iterable<string> {
  let rest = "";
  for (const piece of pieces) {
    const text = rest + piece;
    const cut = lastCut(text, rest.length);
    if (cut > 0) yield text.slice(0, cut);
    rest = text.slice(cut);
    if (rest.length > LONGEST_RUN) {
      throw new UserError(
        `Cannot cut the text into words for tokenizer=bpe: it has a run of over ${LONGEST_RUN} ` +
          "letters, digits, signs or spaces; break it up, or use tokenizer=byte",
      );
    }
  }
  if (rest) yield rest;
}

/**
 * The last place, from `least` on, that is surely between two words, whatever follows; 0 if there
 * is none.
 */
function lastCut(text: string, least: number): number {
  for (let at = text.length - 1; at >= Math.max(least, 1); at--) {
    if (isLow(text, at)) continue;
    const kind = kindAt(text, at);
    const before = kindAt(text, isLow(text, at - 1) ? at - 2 : at - 1);
    // Of white space the last one may belong to what follows, and `'` may begin a contraction.
    if (before === kind || before === SPACE) continue;
    if (kind !== LETTER || text.charCodeAt(at - 1) !== APOSTROPHE) return at;
  }
  return 0;
}

/** Where the word that begins at `at` ends. */
function wordEnd(text: string, at: number): number {
  const first = text.charCodeAt(at);
  if (first === APOSTROPHE) {
    const contraction = contractionLength(text, at);
    if (contraction > 0) return at + contraction;
  }
  const begin = first === BLANK && at + 1 < text.length ? at + 1 : at;
  const kind = kindAt(text, begin);
  if (kind !== SPACE) return runEnd(text, begin, kind);
  const end = runEnd(text, at, SPACE);
  // The last one goes to what follows; a single one stays alone.
  return end < text.length && end - at > 1 ? end - 1 : end;
}

function runEnd(text: string, begin: number, kind: number): number {
  let end = begin;
  for (; end < text.length; end++) {
    // Almost all characters are one unit that was met before; half a pair is never noted.
    if (kinds[text.charCodeAt(end)] === kind) continue;
    if (kindAt(text, end) !== kind) break;
    if (text.codePointAt(end)! > 0xffff) end++;
  }
  return end;
}

function contractionLength(text: string, at: number): number {
  switch (text[at + 1]) {
    case "s":
    case "t":
    case "m":
    case "d":
      return 2;
    case "r":
    case "v":
      return text[at + 2] === "e" ? 3 : 0;
    case "l":
      return text[at + 2] === "l" ? 3 : 0;
    default:
      return 0;
  }
}

function kindAt(text: string, at: number): number {
  const codePoint = text.codePointAt(at)!;
  if (codePoint >= 0xd800 && codePoint < 0xe000) return SIGN;
  return kinds[codePoint] || (kinds[codePoint] = kindOf(String.fromCodePoint(codePoint)));
}

function kindOf(character: string): number {
  if (/\p{L}/u.test(character)) return LETTER;
  if (/\p{N}/u.test(character)) return DIGIT;
  return /\p{White_Space}/u.test(character) ? SPACE : SIGN;
}

function isLow(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  return unit >= 0xdc00 && unit < 0xe000;
}

/** The same string with memory of its own: a word that is kept would keep its text in memory. */
export function ownString(word: string): string {
  return Buffer.from(word, "utf16le").toString("utf16le");
}
