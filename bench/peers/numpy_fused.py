"""
FAVOR+ and exact attention as fast as NumPy gets: tiles that stay in cache, features never written to memory, BLAS for all products.

Mathematics of arXiv 2009.14794 (Alg. 1, eq. 5, Lemma 1). Per head, with x = q / d^(1/4), y = k / d^(1/4), W [m, d]:

    S = sum_j phi(y_j) [v_j 1]    [r, d+1]           out_i = (phi(x_i) S)[:d] / (phi(x_i) S)[d]
    phi(x) = exp(w.x - |x|^2/2), hyperbolic also exp(-w.x - |x|^2/2)

* d^(-1/4) is folded into W. A factor that all features of a query share cancels, so queries need no |x|^2.
* A key's exp(-|y|^2/2) multiplies its d+1 columns of [v 1] instead of its r features.
* By Cauchy-Schwarz |w.x| <= |w| |x|: where that is small enough (common.SAFE_EXPONENT) no shift is needed, and none is made. Otherwise
  the key exponents are shifted by their largest possible value, c_a = t |w_a| - t^2/2 with t = min(max|y|, |w_a|), which queries
  add again, and queries by their row maximum. c does not depend on positions, so no state is ever rescaled.

    python3 bench/peers/numpy_fused.py -L 16384 --features positive --mode bidirectional --threads 2
"""

import math

from common import (
    SAFE_EXPONENT,
    HeadPool,
    attend_heads,
    check,
    draw_projection,
    flop_count,
    make_inputs,
    parse_flags,
    pin_library_threads,
    print_measurement,
    print_sgemm,
    projections_for,
    take_samples,
)

flags = parse_flags(
    "fused NumPy attention",
    library_threads=False,
    modes=["bidirectional", "causal"],
    features=["positive", "hyperbolic", "softmax"],
    chunk=32,
)

import numpy as np  # noqa: E402  (after the numbers of threads are set)

KEY_TILE = 512  # keys per tile of exact attention: 256 x 512 weights are half a MiB


class Features:
    """phi of one head for tiles of up to `rows` rows, evaluated in place in one buffer [rows, r]."""

    def __init__(self, W, scaled_norms, key_norms, hyperbolic, buffer):
        """W [m, d] with the scale folded in; `scaled_norms` |w| of the unscaled rows; norms |x|, |y| are at most `key_norms`."""
        self.Wt = np.ascontiguousarray(W.T)
        self.m = W.shape[0]
        self.hyperbolic = hyperbolic
        self.buffer = buffer
        largest_x, largest_y = key_norms
        self.shift = None
        if (largest_x + largest_y) * scaled_norms.max(initial=0) > SAFE_EXPONENT:
            t = np.minimum(largest_y, scaled_norms)
            self.shift = (t * scaled_norms - t * t / 2).astype(np.float32)

    def of_keys(self, y, half_squares):
        """phi(y) [n, r] without the factor exp(-|y|^2/2); with it and shifted where a shift is needed."""
        u = self._project(y)
        if self.shift is None:
            return self._exp(u)
        offset = half_squares[:, None] + self.shift
        if self.hyperbolic:
            np.negative(u[:, : self.m], out=u[:, self.m :])
            offset = np.concatenate([offset, offset], axis=1)
        return np.exp(np.subtract(u, offset, out=u), out=u)

    def of_queries(self, x):
        """phi(x) [n, r] up to one factor per row."""
        u = self._project(x)
        if self.shift is None:
            return self._exp(u)
        if self.hyperbolic:
            np.negative(u[:, : self.m], out=u[:, self.m :])
            u[:, self.m :] += self.shift
        u[:, : self.m] += self.shift
        return np.exp(np.subtract(u, u.max(axis=1, keepdims=True), out=u), out=u)

    def _project(self, rows):
        u = self.buffer[: len(rows)]
        np.matmul(rows, self.Wt, out=u[:, : self.m])
        return u

    def _exp(self, u):
        plus = u[:, : self.m]
        np.exp(plus, out=plus)
        if self.hyperbolic:
            np.reciprocal(plus, out=u[:, self.m :])
        return u


class Buffers:
    """Scratch of one thread."""

    def __init__(self, rows, r, d, chunk):
        self.q = np.empty((rows, r), np.float32)
        self.k = np.empty((rows, r), np.float32)
        self.values = np.empty((rows, d + 1), np.float32)
        self.sums = np.empty((rows, d + 1), np.float32)
        self.more = np.empty((rows, d + 1), np.float32)
        self.S = np.empty((r, d + 1), np.float32)
        self.step = np.empty((r, d + 1), np.float32)
        self.weights = np.empty((max(1, rows // chunk), chunk, chunk), np.float32)
        self.states = np.empty((max(1, rows // chunk) + 1, r, d + 1), np.float32)
        self.lower = np.tril(np.ones((chunk, chunk), np.float32))
        self.logits = np.empty((rows, KEY_TILE), np.float32)


def square_norms(rows):
    """|x|^2 of every row [L]."""
    return np.einsum("ij,ij->i", rows, rows)


def prepare(q, k, W, hyperbolic, buffers):
    """Feature maps of queries and keys, and |y|^2/2 with the factor of the keys' values, both [L]."""
    d = q.shape[-1]
    scale = d**-0.25
    half_squares = square_norms(k)
    half_squares *= scale * scale / 2
    largest = (scale * math.sqrt(square_norms(q).max()), math.sqrt(2 * half_squares.max()))
    norms = np.sqrt(square_norms(W))
    scaled = W * np.float32(scale)
    of = [Features(scaled, norms, largest, hyperbolic, buffer) for buffer in (buffers.q, buffers.k)]
    factors = np.ones_like(half_squares) if of[0].shift is not None else np.exp(-half_squares)
    return of, half_squares, factors


def weigh(v, factors, values):
    """[v 1] times the factor of each row, [n, d+1]."""
    np.multiply(v, factors[:, None], out=values[:, :-1])
    values[:, -1] = factors
    return values


def bidirectional(q, k, v, W, hyperbolic, out, buffers):
    """One head: q, k, v, out [L, d], W [m, d]."""
    (of_q, of_k), half_squares, factors = prepare(q, k, W, hyperbolic, buffers)
    L, rows, S, step = len(q), len(buffers.q), buffers.S, buffers.step
    S.fill(0)
    for start in range(0, L, rows):
        part = slice(start, min(start + rows, L))
        values = weigh(v[part], factors[part], buffers.values[: part.stop - start])
        S += np.matmul(of_k.of_keys(k[part], half_squares[part]).T, values, out=step)
    for start in range(0, L, rows):
        part = slice(start, min(start + rows, L))
        sums = np.matmul(of_q.of_queries(q[part]), S, out=buffers.sums[: part.stop - start])
        np.divide(sums[:, :-1], sums[:, -1:], out=out[part])


def causal(q, k, v, W, hyperbolic, out, buffers):
    """
    One head, in chunks: within a chunk tril(phi(x) phi(y)^T) [v 1], before it the state (arXiv 2009.14794, App. B.1). The chunks of a
    tile are one stack, so that NumPy is called a few times per tile and not per chunk.
    """
    (of_q, of_k), half_squares, factors = prepare(q, k, W, hyperbolic, buffers)
    L, rows, chunk, states = len(q), len(buffers.q), len(buffers.lower), buffers.states
    states[0].fill(0)
    for start in range(0, L, rows):
        part = slice(start, min(start + rows, L))
        n = part.stop - start
        queries = of_q.of_queries(q[part])
        keys = of_k.of_keys(k[part], half_squares[part])
        values = weigh(v[part], factors[part], buffers.values[:n])
        sums, more = buffers.sums[:n], buffers.more[:n]
        whole = n - n % chunk
        for c, size in ((slice(0, whole), chunk), (slice(whole, n), n - whole)):
            if c.start == c.stop:
                continue
            queries_c, keys_c, values_c, sums_c, more_c = (
                rows_of[c].reshape(-1, size, rows_of.shape[1]) for rows_of in (queries, keys, values, sums, more)
            )
            count = len(queries_c)
            weights = buffers.weights[:count, :size, :size]
            np.matmul(queries_c, keys_c.transpose(0, 2, 1), out=weights)
            weights *= buffers.lower[:size, :size]
            np.matmul(weights, values_c, out=sums_c)
            np.matmul(keys_c.transpose(0, 2, 1), values_c, out=states[1 : count + 1])
            for i in range(count):
                states[i + 1] += states[i]
            sums_c += np.matmul(queries_c, states[:count], out=more_c)
            states[0] = states[count]
        np.divide(sums[:, :-1], sums[:, -1:], out=out[part])


def exact(q, k, v, out, is_causal, buffers):
    """One head of softmax attention, queries and keys in tiles; a running row maximum only where exponents could be large."""
    L, rows = len(q), len(buffers.q)
    d = q.shape[-1]
    scale = np.float32(d**-0.5)
    bounded = scale * math.sqrt(float(square_norms(q).max()) * float(square_norms(k).max())) <= SAFE_EXPONENT
    values = np.ones((L, d + 1), np.float32)
    values[:, :-1] = v
    for start in range(0, L, rows):
        stop = min(start + rows, L)
        x = q[start:stop] * scale
        sums = buffers.sums[: stop - start]
        sums.fill(0)
        largest = np.full((stop - start, 1), -np.inf, np.float32)
        for first in range(0, stop if is_causal else L, KEY_TILE):
            last = min(first + KEY_TILE, stop if is_causal else L)
            weights = np.matmul(x, k[first:last].T, out=buffers.logits[: stop - start, : last - first])
            if is_causal and last > start:
                weights[np.arange(first, last) > np.arange(start, stop)[:, None]] = -np.inf
            if not bounded:
                before = largest
                largest = np.maximum(before, weights.max(axis=1, keepdims=True))
                weights -= largest
                sums *= np.exp(before - largest)
            np.exp(weights, out=weights)
            sums += np.matmul(weights, values[first:last], out=buffers.more[: stop - start])
        np.divide(sums[:, :-1], sums[:, -1:], out=out[start:stop])


def attend(pool, q, k, v, W, features, is_causal, out):
    """All heads: q, k, v, out [H, L, d], W [H, m, d]."""
    return attend_heads(pool, exact, causal if is_causal else bidirectional, q, k, v, W, features, is_causal, out)


def pool_for(r, d):
    return HeadPool(flags.threads, lambda: Buffers(flags.tile, r, d, flags.chunk))


def main():
    version = f"numpy {np.__version__}"
    if flags.check:
        cases = [(features, mode == "causal") for features in flags.features for mode in flags.mode]
        check(
            np,
            lambda q, k, v, W, features, is_causal: attend(
                pool_for(2 * W.shape[1] if features == "hyperbolic" else W.shape[1], q.shape[-1]),
                *(q, k, v, W, features, is_causal, np.empty_like(v)),
            ),
            cases,
            flags,
        )
    if flags.sgemm:
        pin_library_threads(flags.threads)
        A, B = (np.random.default_rng(i).standard_normal((2048, 2048), dtype=np.float32) for i in range(2))
        C = np.empty_like(A)
        print_sgemm("numpy-sgemm", version, flags, lambda: np.matmul(A, B, out=C))
        pin_library_threads(1)
    pool = pool_for(flags.num_features, flags.head_dim)
    for L in flags.lengths:
        q, k, v = make_inputs(np, flags.heads, L, flags.head_dim, flags.spread, flags.seed)
        out = np.empty_like(v)
        for features in flags.features:
            W = draw_projection(
                np, flags.heads, projections_for(features, flags.num_features), flags.head_dim, flags.seed
            )
            for mode in flags.mode:
                seconds = take_samples(lambda: attend(pool, q, k, v, W, features, mode == "causal", out), flags)
                flops = flop_count(features, mode, L, flags.heads, flags.head_dim, flags.num_features)
                print_measurement("numpy-fused", version, flags, mode, features, L, seconds, flops)


if __name__ == "__main__":
    main()
