#!/usr/bin/env bash
# How time grows with L, up to a million rows: lengths.sh [NAME [FLAGS…]]
exec "$(dirname "$0")/workload.sh" lengths "${1-}" --mode bidirectional,causal --features hyperbolic -m 256 -L 2^14,2^15,2^16,2^17,2^18,2^19,2^20 --samples 5 "${@:2}"
