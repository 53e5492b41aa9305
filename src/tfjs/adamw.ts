/**
 * AdamW on arrays: Adam with decoupled weight decay.
 *
 * @module
 */
import type { Floats } from "./backend.ts";

/** A parameter with its moments, all of the same length. */
export interface AdamwState {
  parameter: Floats;
  m: Floats;
  v: Floats;
}

/** The numbers of one update. */
export interface AdamwHyper {
  lr: number;
  weightDecay: number;
  beta1: number;
  beta2: number;
  eps: number;
  /** 1 for the first update. */
  update: number;
  /** Factor for the gradient, from clipping. */
  scale: number;
}

/**
 * Updates a parameter and its moments in place (Loshchilov and Hutter, "Decoupled Weight Decay
 * Regularization", 2019):
 *
 * - m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g²
 * - p −= lr · (m̂ / (√v̂ + ε) + weightDecay · p), where m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ)
 */
export function adamw({ parameter, m, v }: AdamwState, gradient: Floats, hyper: AdamwHyper): void {
  const { lr, weightDecay, beta1, beta2, eps, update, scale } = hyper;
  const unbias1 = 1 / (1 - beta1 ** update);
  const unbias2 = 1 / (1 - beta2 ** update);
  for (let i = 0; i < parameter.length; i++) {
    const g = gradient[i] * scale;
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    const direction = m[i] * unbias1 / (Math.sqrt(v[i] * unbias2) + eps);
    parameter[i] -= lr * (direction + weightDecay * parameter[i]);
  }
}
