import { bpeJson } from "./byte_level.ts";
import type { Tokenizer, TokenizerJson } from "./tokenizer.ts";

/** The replacement character: the token of all characters that are not in the vocabulary. */
const UNKNOWN = "\ufffd";

/** A token per character (Unicode code point). Saved as BPE without merges. */
export class CharTokenizer implements Tokenizer {
  readonly kind = "char";
  readonly vocabSize: number;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #characters: readonly string[];

  /** @param vocab the id of each character, U+FFFD among them */
  constructor(vocab: Record<string, number>) {
    this.#ids = new Map(Object.entries(vocab));
    const characters: string[] = [];
    for (const [character, id] of this.#ids) characters[id] = character;
    if (!this.#ids.has(UNKNOWN)) {
      throw new RangeError("Cannot make a char tokenizer: U+FFFD is not in its vocabulary");
    }
    this.#characters = characters;
    this.vocabSize = characters.length;
  }

  /** The characters of a text in the order of their code points, U+FFFD first. */
  static train(pieces: Iterable<string>): CharTokenizer {
    const characters = new Set<string>();
    for (const piece of pieces) {
      for (const character of piece.toWellFormed()) characters.add(character);
    }
    characters.delete(UNKNOWN);
    const sorted = [...characters].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!);
    return new CharTokenizer(
      Object.fromEntries([UNKNOWN, ...sorted].map((character, id) => [character, id])),
    );
  }

  encode(text: string): Int32Array {
    const unknown = this.#ids.get(UNKNOWN)!;
    const ids = new Int32Array(text.length);
    let n = 0;
    for (const character of text) ids[n++] = this.#ids.get(character) ?? unknown;
    return ids.slice(0, n);
  }

  parts(pieces: Iterable<string>): Iterable<string> {
    return pieces;
  }

  decode(ids: ArrayLike<number>): string {
    return Array.from(ids, (id) => {
      const character = this.#characters[id];
      if (character === undefined) {
        throw new RangeError(`Cannot decode token ${id}: the vocabulary has ${this.vocabSize}`);
      }
      return character;
    }).join("");
  }

  byteLengths(text: string, ids: Int32Array): Int32Array {
    const lengths = new Int32Array(ids.length);
    let n = 0;
    for (const character of text) lengths[n++] = utf8Length(character.codePointAt(0)!);
    return lengths;
  }

  toJSON(): TokenizerJson {
    return bpeJson(this.#characters, [], UNKNOWN, null);
  }
}

function utf8Length(codePoint: number): number {
  if (codePoint < 0x80) return 1;
  if (codePoint < 0x800) return 2;
  return codePoint < 0x10000 ? 3 : 4;
}
