"""
FAVOR+ and exact attention in torch as one writes them down: an operation on whole tensors after the other, threads left to torch.

What a user of torch gets without tiling by hand. All features [H, L, r] pass through memory several times, and most of the time may
go into page faults of temporaries: compare with and without the allocator settings of run.sh. Mathematics of arXiv 2009.14794
(Alg. 1, eq. 5), exponents shifted by their maxima, no epsilon. Exact attention is torch's own where torch has it.

    python3 bench/peers/torch_plain.py -L 16384 --features positive --threads 2
"""

from common import (
    check,
    draw_projection,
    flop_count,
    make_inputs,
    parse_flags,
    print_measurement,
    projections_for,
    take_samples,
    torch_blas,
)

flags = parse_flags(
    "whole-tensor torch attention",
    library_threads=True,
    modes=["bidirectional"],
    features=["positive", "hyperbolic", "softmax"],
)

import numpy as np  # noqa: E402  (after the numbers of threads are set)
import torch  # noqa: E402

torch.set_num_threads(flags.threads)
torch.set_grad_enabled(False)


def attend(q, k, v, W, features):
    """q, k, v [H, L, d], W [H, m, d]; returns [H, L, d]."""
    if features == "softmax":
        if hasattr(torch.nn.functional, "scaled_dot_product_attention"):
            return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1) @ v
    x, y = (part * q.shape[-1] ** -0.25 for part in (q, k))
    u_x, u_y = (part @ W.transpose(1, 2) for part in (x, y))
    if features == "hyperbolic":
        u_x, u_y = (torch.cat([u, -u], dim=-1) for u in (u_x, u_y))
    u_y = u_y - y.square().sum(dim=-1, keepdim=True) / 2
    c = u_y.amax(dim=1, keepdim=True)
    u_x = u_x + c
    phi_x = torch.exp(u_x - u_x.amax(dim=-1, keepdim=True))
    phi_y = torch.exp(u_y - c)
    return phi_x @ (phi_y.transpose(1, 2) @ v) / (phi_x @ phi_y.sum(dim=1)[..., None])


def main():
    version = f"torch {torch.__version__}"
    if flags.check:
        cases = [(features, False) for features in flags.features]
        tensors = lambda parts: (torch.from_numpy(part) for part in parts)  # noqa: E731
        check(np, lambda q, k, v, W, features, _: attend(*tensors((q, k, v, W)), features).numpy(), cases, flags)
    for L in flags.lengths:
        q, k, v = map(torch.from_numpy, make_inputs(np, flags.heads, L, flags.head_dim, flags.spread, flags.seed))
        for features in flags.features:
            m = projections_for(features, flags.num_features)
            W = torch.from_numpy(draw_projection(np, flags.heads, m, flags.head_dim, flags.seed))
            seconds = take_samples(lambda: attend(q, k, v, W, features), flags)
            flops = flop_count(features, "bidirectional", L, flags.heads, flags.head_dim, flags.num_features)
            print_measurement(
                *("torch-plain", version, flags, "bidirectional", features, L, seconds, flops), blas=torch_blas(torch)
            )


if __name__ == "__main__":
    main()
