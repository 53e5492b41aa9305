/**
 * A text, and which parts of it are trained on and which validate.
 *
 * @module
 */
import type { DataIdentity } from "./identity.ts";

/** The parts of a dataset. */
export type Split = "train" | "validation";

/** The share of a text that is kept for validation. */
export const VALIDATION_SHARE = 0.1;

/** A text, and what tells it from others. */
export interface Corpus extends DataIdentity {
  /** What was asked for. */
  readonly name: string;
  /** UTF-16 units of the whole text. */
  readonly length: number;
  /**
   * The whole text in pieces, several files being joined; no piece ends within a character. The
   * files of a large text are read again each time.
   *
   * @throws {UserError} if they have changed since, at the end
   */
  pieces(): Iterable<string>;
  /**
   * The same text as what it is split into: all that is trained on, then one part or more that
   * validate, each to be read by itself. A part is read to its end before the next one is asked for.
   *
   * @throws {UserError} if the files have changed since, at the end
   */
  parts(): Iterable<TextPart>;
}

/** A part of a text. */
export interface TextPart {
  /** What it is for. */
  readonly split: Split;
  /** The name of the document that it is; null where there are none, or it is many. */
  readonly document: string | null;
  /** Its text; no piece ends within a character. */
  readonly pieces: Iterable<string>;
}

/**
 * The two parts of a text that has no documents: its beginning is trained on, its end validates.
 *
 * @param pieces the text
 * @param length UTF-16 units of it
 */
export function* textParts(pieces: Iterable<string>, length: number): Iterable<TextPart> {
  const cut = Math.floor(length * (1 - VALIDATION_SHARE));
  const halves = new Halves(pieces[Symbol.iterator](), cut);
  yield { split: "train", document: null, pieces: halves.first() };
  yield { split: "validation", document: null, pieces: halves.second() };
}

/** What is trained on of a text. */
export function trainPieces(corpus: Corpus): Iterable<string> {
  for (const { split, pieces } of corpus.parts()) if (split === "train") return pieces;
  throw new RangeError(`${corpus.name} has no part to train on`);
}

/** Both sides of a cut, in one pass over a text's pieces. */
class Halves {
  readonly #pieces: Iterator<string>;
  readonly #cut: number;
  /** What the piece at the cut has of the second one. */
  #rest = "";

  constructor(pieces: Iterator<string>, cut: number) {
    this.#pieces = pieces;
    this.#cut = cut;
  }

  *first(): Iterable<string> {
    let left = this.#cut;
    while (left > 0) {
      const { done, value: piece } = this.#pieces.next();
      if (done) return;
      let end = Math.min(left, piece.length);
      // Not between the two halves of a surrogate pair.
      if (/^[\udc00-\udfff]/.test(piece.slice(end, end + 1))) end--;
      if (end > 0) yield piece.slice(0, end);
      if (end < piece.length) this.#rest = piece.slice(end);
      left -= piece.length;
    }
  }

  *second(): Iterable<string> {
    if (this.#rest) yield this.#rest;
    for (let next; !(next = this.#pieces.next()).done;) yield next.value;
  }
}
