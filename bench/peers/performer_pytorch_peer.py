"""
`performer_pytorch.FastAttention` (pip install performer-pytorch) as it is shipped, on the CPU, with a projection of ours.

It shares one projection [m, d] among all heads and adds an epsilon to every feature, so `--check` prints the distance to the dense
estimate as information only. Causal attention takes the path that needs no CUDA. The name of this file keeps it apart from the
package's.

    python3 bench/peers/performer_pytorch_peer.py -L 16384 --mode bidirectional --threads 2
"""

import contextlib
import inspect
import sys

from common import (
    dense_reference,
    draw_projection,
    flop_count,
    make_inputs,
    parse_flags,
    print_measurement,
    take_samples,
    torch_blas,
)

flags = parse_flags(
    "performer-pytorch as shipped", library_threads=True, modes=["bidirectional", "causal"], features=["positive"]
)

import numpy as np  # noqa: E402  (after the numbers of threads are set)
import torch  # noqa: E402

with contextlib.redirect_stdout(sys.stderr):
    from performer_pytorch import performer_pytorch as module  # noqa: E402

torch.set_num_threads(flags.threads)
torch.set_grad_enabled(False)


def version():
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return f"performer-pytorch {installed('performer-pytorch')}, torch {torch.__version__}"
    except PackageNotFoundError:
        return f"performer_pytorch at {module.__file__}, torch {torch.__version__}"


def attention(W, causal):
    """A FastAttention module with projection W [m, d] that never draws another."""
    options = {"dim_heads": W.shape[1], "nb_features": W.shape[0], "causal": causal}
    if "feature_redraw_interval" in inspect.signature(module.FastAttention.__init__).parameters:
        options["feature_redraw_interval"] = None  # versions that redraw inside forward
    with contextlib.redirect_stdout(sys.stderr):  # it prints that there is no CUDA kernel
        made = module.FastAttention(**options)
    made.projection_matrix.copy_(torch.from_numpy(W))
    if causal:
        made.causal_linear_fn = module.causal_linear_attention_noncuda
    return made.eval()


def main():
    if flags.check:
        q, k, v = make_inputs(np, 1, 700, flags.head_dim, flags.spread, 7)
        W = draw_projection(np, 1, flags.num_features, flags.head_dim, 7)[0]
        for mode in flags.mode:
            got = attention(W, mode == "causal")(*(torch.from_numpy(part)[None] for part in (q, k, v))).numpy()[0, 0]
            dense = dense_reference(
                np, *(part.astype(np.float64) for part in (q[0], k[0], v[0], W)), "positive", mode == "causal"
            )
            error = np.linalg.norm(got - dense) / np.linalg.norm(dense)
            print(f"info {mode:13s} relative L2 {error:.1e} from the estimate without epsilon")
        return
    for L in flags.lengths:
        q, k, v = (
            torch.from_numpy(part)[None]
            for part in make_inputs(np, flags.heads, L, flags.head_dim, flags.spread, flags.seed)
        )
        W = draw_projection(np, 1, flags.num_features, flags.head_dim, flags.seed)[0]
        for mode in flags.mode:
            attend = attention(W, mode == "causal")
            seconds = take_samples(lambda: attend(q, k, v), flags)
            flops = flop_count("positive", mode, L, flags.heads, flags.head_dim, flags.num_features)
            print_measurement(
                *("performer-pytorch", version(), flags, mode, "positive", L, seconds, flops), blas=torch_blas(torch)
            )


if __name__ == "__main__":
    main()
