/** A binary heap of pairs of numbers that gives the least key first, ties by the least value. */
export class MinHeap {
  readonly #keys: number[] = [];
  readonly #values: number[] = [];

  get size(): number {
    return this.#keys.length;
  }

  /** Key of the least pair; undefined if the heap is empty. */
  get key(): number {
    return this.#keys[0];
  }

  push(key: number, value: number): void {
    const keys = this.#keys, values = this.#values;
    let i = keys.length;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (keys[parent] < key || keys[parent] === key && values[parent] <= value) break;
      keys[i] = keys[parent];
      values[i] = values[parent];
      i = parent;
    }
    keys[i] = key;
    values[i] = value;
  }

  /** Removes the least pair and returns its value; undefined if the heap is empty. */
  pop(): number {
    const keys = this.#keys, values = this.#values;
    const top = values[0];
    const key = keys.pop()!, value = values.pop()!;
    const n = keys.length;
    if (n === 0) return top;
    let i = 0;
    for (let child = 1; child < n; child = 2 * i + 1) {
      const right = child + 1;
      if (
        right < n &&
        (keys[right] < keys[child] || keys[right] === keys[child] && values[right] < values[child])
      ) child = right;
      if (key < keys[child] || key === keys[child] && value <= values[child]) break;
      keys[i] = keys[child];
      values[i] = values[child];
      i = child;
    }
    keys[i] = key;
    values[i] = value;
    return top;
  }
}
