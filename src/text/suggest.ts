/**
 * Guesses what a mistyped word was meant to be.
 *
 * @module
 */

/**
 * The candidate nearest to a word by edit distance, or null if none is near. Case, `_` and `-` do
 * not count, so that `q_lora_rank` finds `qLoraRank`.
 */
export function suggest(word: string, candidates: readonly string[]): string | null {
  const typed = plain(word);
  let best: string | null = null;
  let least = Math.max(2, Math.floor(typed.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(typed, plain(candidate));
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

function plain(word: string): string {
  return word.toLowerCase().replaceAll(/[_-]/g, "");
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, change));
    }
    row = next;
  }
  return row[b.length];
}
