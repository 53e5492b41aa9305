import { byteLevelJson, letterOfByte } from "./byte_level.ts";
import type { Tokenizer, TokenizerJson } from "./tokenizer.ts";

/** A token per byte of UTF-8: the id is the byte. Represents every text and learns nothing. */
export class ByteTokenizer implements Tokenizer {
  readonly kind = "byte";
  readonly vocabSize = 256;

  encode(text: string): Int32Array {
    return new Int32Array(new TextEncoder().encode(text));
  }

  parts(pieces: Iterable<string>): Iterable<string> {
    return pieces;
  }

  decode(ids: ArrayLike<number>): string {
    const bytes = Uint8Array.from(ids);
    const bad = bytes.findIndex((byte, i) => byte !== ids[i]);
    if (bad >= 0) throw new RangeError(`Cannot decode token ${ids[bad]}: the vocabulary has 256`);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }

  byteLengths(_text: string, ids: Int32Array): Int32Array {
    return new Int32Array(ids.length).fill(1);
  }

  toJSON(): TokenizerJson {
    return byteLevelJson(letterOfByte, []);
  }
}
