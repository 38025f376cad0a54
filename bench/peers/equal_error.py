"""
At equal error: how many hyperbolic features do as well as 256 positive ones? NumPy in float64; takes about a minute.

Draws q, k, v with entries N(0, spread^2), evaluates exact softmax attention on some query rows against all L keys, and the same rows
through random features. Error: relative L2 of the output rows, ||O_hat - O|| / ||O||, one figure per seed and head. A seed draws new
data and new projections for every map. The reference is positive features with orthogonal projections.

    python3 bench/peers/equal_error.py -L 16384 --spread 0.25 --seeds 8
"""

import argparse
import json
import math

import numpy as np

from common import haar


def hadamard_directions(random, d):
    """[d, d]: N D3 N D2 N D1 with N = H / sqrt(d), Sylvester's H, D of random signs; d a power of two (2009.14794 App. B.2)."""
    H = np.ones((1, 1))
    while len(H) < d:
        H = np.block([[H, H], [H, -H]])
    U = np.eye(d)
    for _ in range(3):
        U = (H / math.sqrt(d)) @ (random.choice([-1.0, 1.0], d)[:, None] * U)
    return U


def projection(random, kind, m, d):
    """W [m, d]: independent blocks of d rows, norms of Gaussian vectors."""
    directions = {"orthogonal": lambda: haar(np, random, d), "hadamard": lambda: hadamard_directions(random, d)}[kind]
    blocks = [directions()[: min(d, m - start)] for start in range(0, m, d)]
    return np.linalg.norm(random.standard_normal((m, d)), axis=1)[:, None] * np.concatenate(blocks)


def softmax_rows(x, y, v):
    """Exact attention of x [n, d] over y [L, d], v [L, d]."""
    logs = x @ y.T
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return weights @ v / weights.sum(axis=1, keepdims=True)


def feature_rows(x, y, v, W, hyperbolic):
    """The same through exp(w.x - |x|^2/2), and exp(-w.x - |x|^2/2) where hyperbolic; log-domain, shifted by maxima."""
    u_x, u_y = x @ W.T, y @ W.T
    if hyperbolic:
        u_x, u_y = (np.concatenate([u, -u], axis=1) for u in (u_x, u_y))
    u_y = u_y - (y * y).sum(axis=1, keepdims=True) / 2
    c = u_y.max(axis=0)
    phi_y = np.exp(u_y - c)
    u_x = u_x + c
    phi_x = np.exp(u_x - u_x.max(axis=1, keepdims=True))
    return phi_x @ (phi_y.T @ v) / (phi_x @ phi_y.sum(axis=0))[:, None]


def main():
    parser = argparse.ArgumentParser(description="features needed for equal error")
    parser.add_argument("-L", "--length", type=int, default=16384)
    parser.add_argument("--spread", type=float, default=0.25, help="standard deviation of the entries")
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--queries", type=int, default=512, help="query rows that are compared")
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--reference", type=int, default=256, help="positive features to be matched")
    parser.add_argument("--grid", default="16,24,32,48,64,80,96,128,160,192,256")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of text")
    flags = parser.parse_args()
    d = flags.head_dim
    if d & (d - 1):
        parser.error(f"cannot use --head-dim {d}: Hadamard projections here need a power of two")
    grid = [int(r) for r in flags.grid.split(",")]
    candidates = [("positive", "orthogonal", flags.reference)]
    candidates += [("hyperbolic", kind, r) for kind in ("orthogonal", "hadamard") for r in grid]
    errors = {candidate: [] for candidate in candidates}
    uniform = []
    for seed in range(flags.seeds):
        for head in range(flags.heads):
            random = np.random.default_rng([seed, head])
            x, y = (
                flags.spread * random.standard_normal((n, d)) / d**0.25 for n in (flags.queries, flags.length)
            )
            v = flags.spread * random.standard_normal((flags.length, d))
            exact = softmax_rows(x, y, v)
            uniform.append(np.linalg.norm(v.mean(axis=0) - exact) / np.linalg.norm(exact))
            for features, kind, r in candidates:
                hyperbolic = features == "hyperbolic"
                W = projection(random, kind, r // 2 if hyperbolic else r, d)
                got = feature_rows(x, y, v, W, hyperbolic)
                errors[features, kind, r].append(np.linalg.norm(got - exact) / np.linalg.norm(exact))
    n = len(uniform)
    rows = [
        {
            "features": features,
            "projection": kind,
            "numFeatures": r,
            "error": float(np.mean(values)),
            "standardDeviation": float(np.std(values, ddof=1)),
            "standardError": float(np.std(values, ddof=1) / math.sqrt(n)),
        }
        for (features, kind, r), values in errors.items()
    ]
    target = rows[0]["error"]
    smallest = {
        kind: next((row["numFeatures"] for row in rows[1:] if row["projection"] == kind and row["error"] <= target), None)
        for kind in ("orthogonal", "hadamard")
    }
    if flags.json:
        settings = {name: value for name, value in vars(flags).items() if name != "json"}
        print(json.dumps({"settings": settings, "uniform": float(np.mean(uniform)), "rows": rows, "smallest": smallest}))
        return
    print(
        f"L {flags.length}, d {d}, entries N(0, {flags.spread}^2), {flags.queries} query rows, {n} draws of data and projections; "
        f"error of the mean of V: {np.mean(uniform):.4f}\n"
    )
    print("| features | projection | r | relative L2 (mean) | standard deviation of a draw | standard error of the mean |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['features']} | {row['projection']} | {row['numFeatures']} | {row['error']:.4f} | "
            f"{row['standardDeviation']:.4f} | {row['standardError']:.4f} |"
        )
    for kind, r in smallest.items():
        print(f"\nsmallest hyperbolic {kind} r with at most the error of positive r = {flags.reference}: {r}")


if __name__ == "__main__":
    main()
