/**
 * φ of hybrid features: λ̂ · (positive) + (1 − λ̂) · (trigonometric), λ̂ = ½ − (1/2n) Σ_b sgn(τ_b·x) sgn(τ_b·y), whose mean is θ/π for the
 * angle θ between x and y. Both parts are unbiased for softmax's kernel and independent of λ̂, so is their mixture; it has no error at
 * all at y = x, where λ̂ = 0, and at y = −x, where λ̂ = 1. Source: "Hybrid Random Features" (arXiv 2110.04367), angular hybrids.
 *
 * Of W the first m rows are positive features', the next m trigonometric ones', the last n are τ. Features, each block once for the
 * constant ½ and once for every sign: (1 + n) m positive ones, then (1 + n) 2m trigonometric ones. The minus of λ̂ goes to the queries. A
 * query's e^{+‖x‖²/2} is common to all and left out, which leaves e^{−‖x‖²} on its positive features.
 */

/** @param u W x, 2m + n numbers. @param half ‖x‖²/2. Writes r = 3 (1 + n) m values and exponents from `out` on. */
export function fillHybrid(
  u: Float64Array,
  { signs: n, gain, query, half }: { signs: number; gain: number; query: boolean; half: number },
  g: Float64Array,
  e: Float64Array,
  out: number,
): void {
  const m = (u.length - n) / 2;
  const trig = out + (1 + n) * m;
  e.fill(query ? 0 : half, trig, trig + (1 + n) * 2 * m);
  for (let part = 0; part <= n; part++) {
    const sign = part === 0 ? 1 : u[2 * m + part - 1] >= 0 ? 1 : -1;
    const share = sign * gain * (part === 0 ? Math.SQRT1_2 : 1 / Math.sqrt(2 * n));
    const apart = part > 0 && query ? -share : share;
    for (let a = 0; a < m; a++) {
      g[out + part * m + a] = apart;
      e[out + part * m + a] = u[a] - (query ? 2 : 1) * half;
      g[trig + part * 2 * m + a] = share * Math.sin(u[m + a]);
      g[trig + part * 2 * m + m + a] = share * Math.cos(u[m + a]);
    }
  }
}
