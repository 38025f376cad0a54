#!/usr/bin/env bash
# One thread, two, four … at one L: scaling.sh [NAME [FLAGS…]]
export PERFORMER_MODE=bidirectional,causal PERFORMER_FEATURES=hyperbolic,softmax PERFORMER_NUM_FEATURES=256 PERFORMER_LENGTHS=4096 PERFORMER_THREADS="${THREADS:-1,2}"
exec "$(dirname "$0")/workload.sh" scaling "$@"
