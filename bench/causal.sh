#!/usr/bin/env bash
# Causal FAVOR+ over growing L: causal.sh [NAME [FLAGS…]]
exec "$(dirname "$0")/workload.sh" causal "${1-}" --mode causal --features hyperbolic,positive -m 256 -L 1024,4096,16384,65536 "${@:2}"
