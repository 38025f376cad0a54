"""
FAVOR+ and exact attention in torch, fused as in numpy_fused.py: tiles in cache, one BLAS thread per head, a pool over heads.

The mathematics is that of numpy_fused.py (arXiv 2009.14794, Alg. 1, eq. 5, Lemma 1); see there for the symbols, and for when and by
how much exponents are shifted.

    /usr/bin/python3 bench/peers/torch_fused.py -L 16384 --features positive --mode causal --threads 2
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
    torch_blas,
)

flags = parse_flags(
    "fused torch attention",
    library_threads=False,
    modes=["bidirectional", "causal"],
    features=["positive", "hyperbolic", "softmax"],
)

import numpy as np  # noqa: E402  (after the numbers of threads are set)
import torch  # noqa: E402

torch.set_num_threads(1)
torch.set_grad_enabled(False)
KEY_TILE = 512  # keys per tile of exact attention


class Features:
    """phi of one head for tiles of up to `rows` rows, evaluated in place in one buffer [rows, r]."""

    def __init__(self, W, scaled, largest, hyperbolic, buffer):
        """W and `scaled` [m, d], without and with the scale folded in; `largest` |x| and |y| of the scaled rows."""
        self.Wt = scaled.t().contiguous()
        self.m = W.shape[0]
        self.hyperbolic = hyperbolic
        self.buffer = buffer
        norms = W.norm(dim=1)
        self.shift = None
        if sum(largest) * float(norms.max()) > SAFE_EXPONENT:
            t = norms.clamp(max=largest[1])
            self.shift = t * norms - t * t / 2

    def of_keys(self, y, half_squares):
        """phi(y) [n, r] without the factor exp(-|y|^2/2); with it and shifted where a shift is needed."""
        u = self._project(y)
        if self.shift is None:
            return self._exp(u)
        offset = half_squares[:, None] + self.shift
        if self.hyperbolic:
            torch.neg(u[:, : self.m], out=u[:, self.m :])
            u[:, self.m :].sub_(offset)
        u[:, : self.m].sub_(offset)
        return u.exp_()

    def of_queries(self, x):
        """phi(x) [n, r] up to one factor per row."""
        u = self._project(x)
        if self.shift is None:
            return self._exp(u)
        if self.hyperbolic:
            torch.neg(u[:, : self.m], out=u[:, self.m :])
            u[:, self.m :].add_(self.shift)
        u[:, : self.m].add_(self.shift)
        return u.sub_(u.amax(dim=1, keepdim=True)).exp_()

    def _project(self, rows):
        u = self.buffer[: len(rows)]
        torch.mm(rows, self.Wt, out=u[:, : self.m])
        return u

    def _exp(self, u):
        plus = u[:, : self.m]
        torch.exp(plus, out=plus)
        if self.hyperbolic:
            torch.reciprocal(plus, out=u[:, self.m :])
        return u


class Buffers:
    """Scratch of one thread."""

    def __init__(self, rows, r, d, chunk):
        torch.set_grad_enabled(False)  # a setting of each thread
        self.q = torch.empty(rows, r)
        self.k = torch.empty(rows, r)
        self.values = torch.empty(rows, d + 1)
        self.sums = torch.empty(rows, d + 1)
        self.S = torch.empty(r, d + 1)
        self.weights = torch.empty(max(1, rows // chunk), chunk, chunk)
        self.states = torch.empty(max(1, rows // chunk) + 1, r, d + 1)
        self.lower = torch.ones(chunk, chunk).tril_()
        self.logits = torch.empty(rows * KEY_TILE)


def square_norms(rows):
    """|x|^2 of every row [L]."""
    return torch.einsum("ij,ij->i", rows, rows)


def prepare(q, k, W, hyperbolic, buffers):
    """Feature maps of queries and keys, and |y|^2/2 with the factor of the keys' values, both [L]."""
    scale = q.shape[-1] ** -0.25
    half_squares = square_norms(k).mul_(scale * scale / 2)
    largest = (scale * math.sqrt(float(square_norms(q).max())), math.sqrt(2 * float(half_squares.max())))
    scaled = W * scale
    of = [Features(W, scaled, largest, hyperbolic, buffer) for buffer in (buffers.q, buffers.k)]
    factors = torch.ones_like(half_squares) if of[0].shift is not None else torch.exp(-half_squares)
    return of, half_squares, factors


def weigh(v, factors, values):
    """[v 1] times the factor of each row, [n, d+1]."""
    torch.mul(v, factors[:, None], out=values[:, :-1])
    values[:, -1] = factors
    return values


def bidirectional(q, k, v, W, hyperbolic, out, buffers):
    """One head: q, k, v, out [L, d], W [m, d]."""
    (of_q, of_k), half_squares, factors = prepare(q, k, W, hyperbolic, buffers)
    L, rows, S = len(q), len(buffers.q), buffers.S.zero_()
    for start in range(0, L, rows):
        part = slice(start, min(start + rows, L))
        values = weigh(v[part], factors[part], buffers.values[: part.stop - start])
        S.addmm_(of_k.of_keys(k[part], half_squares[part]).t(), values)
    for start in range(0, L, rows):
        part = slice(start, min(start + rows, L))
        sums = torch.mm(of_q.of_queries(q[part]), S, out=buffers.sums[: part.stop - start])
        torch.div(sums[:, :-1], sums[:, -1:], out=out[part])


def causal(q, k, v, W, hyperbolic, out, buffers):
    """
    One head, in chunks: within a chunk tril(phi(x) phi(y)^T) [v 1], before it the state (arXiv 2009.14794, App. B.1). The chunks of a
    tile are one stack, so that torch is called a few times per tile and not per chunk.
    """
    (of_q, of_k), half_squares, factors = prepare(q, k, W, hyperbolic, buffers)
    L, rows, chunk, states = len(q), len(buffers.q), len(buffers.lower), buffers.states
    states[0].zero_()
    for start in range(0, L, rows):
        part = slice(start, min(start + rows, L))
        n = part.stop - start
        queries = of_q.of_queries(q[part])
        keys = of_k.of_keys(k[part], half_squares[part])
        values = weigh(v[part], factors[part], buffers.values[:n])
        sums = buffers.sums[:n]
        whole = n - n % chunk
        for c, size in ((slice(0, whole), chunk), (slice(whole, n), n - whole)):
            if c.start == c.stop:
                continue
            queries_c, keys_c, values_c, sums_c = (
                rows_of[c].view(-1, size, rows_of.shape[1]) for rows_of in (queries, keys, values, sums)
            )
            count = len(queries_c)
            weights = buffers.weights[:count, :size, :size]
            torch.bmm(queries_c, keys_c.transpose(1, 2), out=weights)
            weights.mul_(buffers.lower[:size, :size])
            torch.bmm(weights, values_c, out=sums_c)
            torch.bmm(keys_c.transpose(1, 2), values_c, out=states[1 : count + 1])
            for i in range(count):
                states[i + 1].add_(states[i])
            sums_c.baddbmm_(queries_c, states[:count])
            states[0] = states[count]
        torch.div(sums[:, :-1], sums[:, -1:], out=out[part])


def exact(q, k, v, out, is_causal, buffers):
    """One head of softmax attention, queries and keys in tiles; a running row maximum only where exponents could be large."""
    L, d = q.shape
    rows = len(buffers.q)
    scale = d**-0.5
    bounded = scale * math.sqrt(float(square_norms(q).max()) * float(square_norms(k).max())) <= SAFE_EXPONENT
    values = torch.ones(L, d + 1)
    values[:, :-1] = v
    for start in range(0, L, rows):
        stop = min(start + rows, L)
        x = q[start:stop] * scale
        sums = buffers.sums[: stop - start].zero_()
        largest = torch.full((stop - start, 1), -math.inf)
        end = stop if is_causal else L
        for first in range(0, end, KEY_TILE):
            last = min(first + KEY_TILE, end)
            weights = buffers.logits[: (stop - start) * (last - first)].view(stop - start, last - first)
            torch.mm(x, k[first:last].t(), out=weights)
            if is_causal and last > start:
                weights[torch.arange(first, last) > torch.arange(start, stop)[:, None]] = -math.inf
            if not bounded:
                before = largest
                largest = torch.maximum(before, weights.amax(dim=1, keepdim=True))
                weights.sub_(largest)
                sums.mul_(torch.exp(before - largest))
            sums.addmm_(weights.exp_(), values[first:last])
        torch.div(sums[:, :-1], sums[:, -1:], out=out[start:stop])


def attend(pool, q, k, v, W, features, is_causal, out):
    """All heads: q, k, v, out [H, L, d], W [H, m, d]."""
    return attend_heads(pool, exact, causal if is_causal else bidirectional, q, k, v, W, features, is_causal, out)


def pool_for(r, d):
    return HeadPool(flags.threads, lambda: Buffers(flags.tile, r, d, flags.chunk))


def main():
    version = f"torch {torch.__version__}"
    if flags.check:
        cases = [(features, mode == "causal") for features in flags.features for mode in flags.mode]
        check(
            np,
            lambda q, k, v, W, features, is_causal: attend(
                pool_for(2 * W.shape[1] if features == "hyperbolic" else W.shape[1], q.shape[-1]),
                *(torch.from_numpy(part) for part in (q, k, v, W)),
                *(features, is_causal, torch.empty(v.shape)),
            ).numpy(),
            cases,
            flags,
        )
    if flags.sgemm:
        pin_library_threads(flags.threads)
        torch.set_num_threads(flags.threads)
        A, B, C = (torch.randn(2048, 2048) for _ in range(3))
        print_sgemm("torch-sgemm", version, flags, lambda: torch.mm(A, B, out=C), blas=torch_blas(torch))
        pin_library_threads(1)
        torch.set_num_threads(1)
    pool = pool_for(flags.num_features, flags.head_dim)
    for L in flags.lengths:
        q, k, v = map(
            torch.from_numpy, make_inputs(np, flags.heads, L, flags.head_dim, flags.spread, flags.seed)
        )
        out = torch.empty(v.shape)
        for features in flags.features:
            m = projections_for(features, flags.num_features)
            W = torch.from_numpy(draw_projection(np, flags.heads, m, flags.head_dim, flags.seed))
            for mode in flags.mode:
                seconds = take_samples(lambda: attend(pool, q, k, v, W, features, mode == "causal", out), flags)
                flops = flop_count(features, mode, L, flags.heads, flags.head_dim, flags.num_features)
                print_measurement(
                    *("torch-fused", version, flags, mode, features, L, seconds, flops), blas=torch_blas(torch)
                )


if __name__ == "__main__":
    main()
