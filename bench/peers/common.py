"""
What all peers share: flags, threads, inputs, projections, operation counts, timing, and one JSON line per measurement.

Import this module before numpy or torch: BLAS libraries read their number of threads when they are loaded.
"""

import argparse
import json
import math
import os
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

# Below this sum of the largest possible |w.x| + |w.y|, float32 features and their sums over 2^30 rows stay finite without any shift.
SAFE_EXPONENT = 60


def parse_flags(description, *, library_threads, modes, features, chunk=64):
    """
    Flags, named as those of `performer bench` where both have them.

    library_threads: whether the peer leaves threads to its library (True) or runs a pool over heads with one BLAS thread each. chunk: rows per causal chunk
    unless the flag says otherwise: the fastest one measured.
    """

    def names(text):
        return [name for name in text.split(",") if name]

    def numbers(text):
        return [int(name.replace("_", "")) for name in text.split(",")]

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-L", "--lengths", type=numbers, default=[16384], help="rows (default 16384)")
    parser.add_argument("--mode", type=names, default=modes, help="of " + ",".join(modes))
    parser.add_argument("--features", type=names, default=features, help="of " + ",".join(features))
    parser.add_argument("-m", "--num-features", type=int, default=256, help="r, length of the feature vector")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--spread", type=float, default=0.5, help="standard deviation of the entries of q, k and v")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--samples", type=int, default=10, help="samples after a warm-up (default 10)")
    parser.add_argument("--seconds", type=float, default=3, help="time after which 3 samples are enough (default 3)")
    parser.add_argument("--tile", type=int, default=512, help="rows per tile (default 512)")
    parser.add_argument("--chunk", type=int, default=chunk, help=f"rows per causal chunk (default {chunk})")
    parser.add_argument("--label", default=None, help="name to print instead of the peer's own")
    parser.add_argument("--sgemm", action="store_true", help="measure the library's matrix product (2048 cubed) as well")
    parser.add_argument("--check", action="store_true", help="compare with dense float64 and exit")
    flags = parser.parse_args()
    for flag, known in (("mode", modes), ("features", features)):
        unknown = set(getattr(flags, flag)) - set(known)
        if unknown:
            parser.error(f"cannot use --{flag} {','.join(sorted(unknown))}: expected {','.join(known)}")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"):
        os.environ[name] = str(flags.threads if library_threads else 1)
    return flags


def pin_library_threads(threads):
    """Sets the threads of an OpenBLAS that is loaded already (for the matrix product alone)."""
    import ctypes

    for path in _mapped_openblas():
        library = ctypes.CDLL(path)
        for name in ("openblas_set_num_threads", "openblas_set_num_threads64_", "scipy_openblas_set_num_threads64_"):
            if hasattr(library, name):
                getattr(library, name)(threads)


def blas_in_use():
    """Version and kernel of the OpenBLAS in this process, such as "OpenBLAS 0.3.21 … SkylakeX …"; else null."""
    import ctypes

    for path in _mapped_openblas():
        library = ctypes.CDLL(path)
        for stem in ("openblas_get_%s", "openblas_get_%s64_", "scipy_openblas_get_%s64_", "scipy_openblas_get_%s"):
            if hasattr(library, stem % "config"):
                texts = []
                for what in ("config", "corename"):
                    call = getattr(library, stem % what)
                    call.restype = ctypes.c_char_p
                    texts.append(call().decode())
                words = texts[0].split()
                return f"{words[0]} {words[1]} {texts[1]}"
    return None


def _mapped_openblas():
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "openblas" in line.rsplit("/", 1)[-1]}
        return sorted(path for path in paths if path.startswith("/"))


def make_inputs(np, heads, length, head_dim, spread, seed):
    """q, k, v: float32 [H, L, d], entries N(0, spread^2)."""
    random = np.random.default_rng(seed)
    return tuple(
        (spread * random.standard_normal((heads, length, head_dim), dtype=np.float32)).astype(np.float32) for _ in "qkv"
    )


def haar(np, random, d):
    """A Haar-distributed orthogonal [d, d]: QR with the signs of R's diagonal moved into Q (plain QR is not Haar)."""
    Q, R = np.linalg.qr(random.standard_normal((d, d)))
    return Q * np.sign(np.diag(R))


def draw_projection(np, heads, projections, d, seed):
    """W [H, m, d]: independent blocks of d orthogonal rows, norms those of Gaussian vectors (arXiv 2009.14794, section 2.4)."""
    random = np.random.default_rng([seed, 1])
    W = np.empty((heads, projections, d))
    for h in range(heads):
        for start in range(0, projections, d):
            rows = min(d, projections - start)
            norms = np.linalg.norm(random.standard_normal((rows, d)), axis=1)
            W[h, start : start + rows] = norms[:, None] * haar(np, random, d)[:rows]
    return W.astype(np.float32)


def projections_for(features, num_features):
    """m projections for r features: exp(+-w.x) makes two of each."""
    return num_features // 2 if features == "hyperbolic" else num_features


def flop_count(features, mode, L, heads, head_dim, num_features):
    """Floating-point operations as `performer bench` counts them: a multiply-add is two, exponentials are not counted."""
    if features == "softmax":
        pairs = L * (L + 1) // 2 if mode == "causal" else L * L
        return pairs * heads * 2 * (head_dim + head_dim)
    per_row = 2 * projections_for(features, num_features) * head_dim + 2 * num_features * (head_dim + 1)
    return 2 * L * heads * per_row


class Samples(list):
    """Seconds of each run, and page faults of all of them together."""

    page_faults = 0


def take_samples(run, flags):
    """
    Seconds of repeated runs: --samples of them, or when --seconds have passed as many as there are, at least 3. Before that a warm-up
    of 3 runs and 0.2 s, in which heaps grow to their size; runs of over 5 s are warmed up once, those of over 10 s measured once.
    """
    warm = 0.0
    runs = 0
    while runs == 0 or (warm < 5 and (runs < 3 or warm < 0.2)):
        start = time.perf_counter()
        run()
        warm += time.perf_counter() - start
        runs += 1
    samples = Samples()
    least = 3 if warm / runs < 10 else 1
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    end = time.perf_counter() + flags.seconds
    while len(samples) < flags.samples and (len(samples) < least or time.perf_counter() < end):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    samples.page_faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return samples


def print_measurement(peer, version, flags, mode, features, L, seconds, flops, **more):
    """One JSON line on stdout. `median` is of `seconds`; tokensPerSecond is L over it, for all heads together."""
    ordered = sorted(seconds)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    line = {
        "peer": flags.label or peer,
        "version": version,
        "mode": mode,
        "features": features,
        "L": L,
        "heads": flags.heads,
        "headDim": flags.head_dim,
        "numFeatures": None if features in ("softmax", None) else flags.num_features,
        "threads": flags.threads,
        "seconds": seconds,
        "median": median,
        "tokensPerSecond": None if mode == "sgemm" else L / median,
        "gflops": flops / median / 1e9,
        "pageFaultsPerRun": round(seconds.page_faults / len(seconds)),
        "blas": blas_in_use(),
        "malloc": {name: text for name, text in sorted(os.environ.items()) if name.startswith("MALLOC_")},
        **more,
    }
    print(json.dumps(line), flush=True)


def print_sgemm(peer, version, flags, product, size=2048, **more):
    """The library's own float32 matrix product, size x size x size."""
    seconds = take_samples(product, flags)
    print_measurement(peer, version, flags, "sgemm", None, size, seconds, 2 * size**3, **more)


def torch_blas(torch):
    """The matrix library of torch: one it was built with, or the OpenBLAS that the system's libblas leads to."""
    return "MKL" if "BLAS_INFO=mkl" in torch.__config__.show() else blas_in_use()


class HeadPool:
    """Runs one job per head on threads; every thread keeps its own buffers."""

    def __init__(self, threads, make_buffers):
        self._local = threading.local()
        self._make = make_buffers
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def buffers(self):
        if not hasattr(self._local, "buffers"):
            self._local.buffers = self._make()
        return self._local.buffers

    def run(self, job, heads):
        if self._pool is None:
            for head in range(heads):
                job(head, self.buffers())
        else:
            list(self._pool.map(lambda head: job(head, self.buffers()), range(heads)))


def attend_heads(pool, exact, linear, q, k, v, W, features, is_causal, out):
    """Runs `exact` (softmax) or `linear` on every head: q, k, v, out [H, L, d], W [H, m, d]."""

    def job(h, buffers):
        if features == "softmax":
            exact(q[h], k[h], v[h], out[h], is_causal, buffers)
        else:
            linear(q[h], k[h], v[h], W[h], features == "hyperbolic", out[h], buffers)

    pool.run(job, len(q))
    return out


# --- checking: dense, float64, einsum without BLAS -------------------------------------------------------------------------


def dense_reference(np, q, k, v, W, features, causal):
    """
    Attention of arXiv 2009.14794 eq. 3-5, with all L x L weights: out = (A V) / (A 1), A = phi(x) phi(y)^T or exp(x y^T), lower
    triangle only where causal; x = q / d^(1/4), phi = exp(+-w.x - |x|^2 / 2). q, k, v [L, d], W [m, d], all float64.
    """
    d = q.shape[-1]
    x, y = q / d**0.25, k / d**0.25
    if features == "softmax":
        logs = np.einsum("id,jd->ij", x, y)
    else:
        logs_x, logs_y = (np.einsum("id,ad->ia", rows, W) for rows in (x, y))
        if features == "hyperbolic":
            logs_x, logs_y = (np.concatenate([u, -u], axis=1) for u in (logs_x, logs_y))
        logs_y = logs_y - (y * y).sum(axis=1, keepdims=True) / 2
        c = logs_y.max(axis=0)
        phi_x = logs_x + c
        phi_x = np.exp(phi_x - phi_x.max(axis=1, keepdims=True))
        A = np.einsum("ia,ja->ij", phi_x, np.exp(logs_y - c))
    if features == "softmax":
        if causal:
            logs = np.where(np.tril(np.ones_like(logs)) > 0, logs, -math.inf)
        A = np.exp(logs - logs.max(axis=1, keepdims=True))
    elif causal:
        A = np.tril(A)
    return np.einsum("ij,jd->id", A, v) / A.sum(axis=1, keepdims=True)


def check(np, attend, cases, flags):
    """
    Compares attend(q, k, v, W, features, causal) [H, L, d] with `dense_reference` on small sizes and prints relative L2 errors.

    cases: (features, causal) pairs. Entries of spread 3 need the shifted form: |x|^2 is about 70 there, and float32 exponents of
    that size are good to 1e-5 only.
    """
    failed = 0
    for L, d, r in ((700, 64, 256), (257, 32, 48)):
        for spread, limit in ((0.25, 3e-6), (0.5, 3e-6), (1, 3e-6), (3, 1e-4)):
            q, k, v = make_inputs(np, 2, L, d, spread, 7)
            for features, causal in cases:
                W = draw_projection(np, 2, projections_for(features, r), d, 7)
                got = np.asarray(attend(q, k, v, W, features, causal), dtype=np.float64)
                exact = np.stack(
                    [
                        dense_reference(np, *(part[h].astype(np.float64) for part in (q, k, v, W)), features, causal)
                        for h in range(2)
                    ]
                )
                error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
                ok = error <= limit
                failed += not ok
                mode = "causal" if causal else "bidirectional"
                print(
                    f"{'ok  ' if ok else 'FAIL'} {features:10s} {mode:13s} L {L} d {d} r {r} spread {spread}: "
                    f"relative L2 {error:.1e}"
                )
    print(f"threads {flags.threads}, {blas_in_use()}")
    sys.exit(1 if failed else 0)
