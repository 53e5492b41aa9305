/**
 * Entropy of the token frequencies in nats per token: the least loss of a model that ignores
 * context, and so what a trained model must be under.
 *
 * @throws {RangeError} if there are no ids, or one is not in the vocabulary
 */
export function unigramEntropy(ids: ArrayLike<number>, vocabSize: number): number {
  const counts = new Float64Array(vocabSize);
  for (let i = 0; i < ids.length; i++) counts[ids[i]]++;
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0 || total !== ids.length) {
    throw new RangeError(
      `Cannot take the entropy of ${ids.length} ids: ${total} are in a vocabulary of ${vocabSize}`,
    );
  }
  return counts.reduce((sum, n) => n > 0 ? sum - n / total * Math.log(n / total) : sum, 0);
}
