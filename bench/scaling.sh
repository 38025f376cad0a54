#!/usr/bin/env bash
# One thread, two, four … at one L: scaling.sh [NAME [FLAGS…]]
exec "$(dirname "$0")/workload.sh" scaling "${1-}" --mode bidirectional,causal --features hyperbolic,softmax -m 256 -L 4096 --threads "${THREADS:-1,2}" "${@:2}"
